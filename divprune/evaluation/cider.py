"""CIDEr of captions, by the pure-Python part of the usual scorer (extra `captions`).

R. Vedantam, C. L. Zitnick, D. Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015. The scorer's
usual tokenizer needs Java; captions of scenes are lower-case words and commas, which need none.
"""

from collections.abc import Sequence

from divprune.errors import MissingDependencyError


def cider_scores(said: Sequence[str], expected: Sequence[str]) -> list[float]:
    """Return the CIDEr of each caption: 10 for the expected one, 7.5 if that has three words and so no 4-gram.

    The weights of the words come from all expected captions.

    Args:
        said: one caption a picture.
        expected: one reference for each.

    Raises:
        MissingDependencyError: pycocoevalcap is not installed.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise MissingDependencyError("CIDEr needs pycocoevalcap: pip install 'divprune[captions]'") from error
    if not said:
        return []
    references = {place: [_words(text)] for place, text in enumerate(expected)}
    candidates = {place: [_words(text)] for place, text in enumerate(said)}
    return [float(score) for score in Cider().compute_score(references, candidates)[1]]


def _words(text: str) -> str:
    return " ".join(text.lower().replace(",", " ").replace(".", " ").split())
