"""CIDEr of captions, by the pure-Python part of the usual scorer (extra `captions`).

R. Vedantam, C. L. Zitnick, D. Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015. The scorer's
usual tokenizer needs Java; captions of scenes are lower-case words and commas, which need none.
"""

from collections.abc import Sequence

from divprune.errors import MissingDependencyError


def cider_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return the CIDEr of each caption: 10 for its only reference, 7.5 if that has three words and so no 4-gram.

    The weights of the words come from all references.

    Args:
        predictions: one caption an image, its words apart by blanks.
        references: those of each image, split alike.

    Raises:
        MissingDependencyError: pycocoevalcap is not installed.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise MissingDependencyError("CIDEr needs pycocoevalcap: pip install 'divprune[captions]'") from error
    if not predictions:
        return []
    expected = dict(enumerate(map(list, references)))
    scores = Cider().compute_score(expected, {place: [text] for place, text in enumerate(predictions)})[1]
    return [float(score) for score in scores]


def scene_words(caption: str) -> str:
    """Return a scene's caption as words, apart by blanks."""
    return " ".join(caption.lower().replace(",", " ").replace(".", " ").split())
