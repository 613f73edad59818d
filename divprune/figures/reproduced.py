"""The paper's figures from the records that `divprune reproduce` writes."""

from typing import Any

from divprune.errors import MissingDependencyError, RecordError
from divprune.figures import max_min_histogram, paper_scores, tokens_tsne
from divprune.figures.saving import rendered
from divprune.figures.style import RC
from divprune.records import Record

ENDINGS = ("", "-tsne", "-max-min")
"""What may follow a record's name in the names of its figures."""


def reproduced(record: Record) -> dict[str, bytes]:
    """Draw what a record of `divprune reproduce figure1`, `3`, `4` or `5` shows.

    Returns:
        The files' contents by name.

    Raises:
        MissingDependencyError: matplotlib or scikit-learn is not installed.
        RecordError: the record does not hold what a figure shows.
    """
    try:
        import matplotlib
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"figures need {error.name}: pip install 'divprune[viz]'") from None
    is_scores = "columns" in record.config
    parts: dict[str, Any] = {"": paper_scores} if is_scores else {"-tsne": tokens_tsne, "-max-min": max_min_histogram}
    files = {}
    try:
        with matplotlib.rc_context(RC):
            for ending, module in parts.items():
                name = f"{record.name}{ending}"
                for kind, content in rendered(module.draw(record), name, f"{record.name}.json").items():
                    files[f"{name}.{kind}"] = content
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RecordError(
            f"{record.name}.json lacks what its figure shows ({error}); delete it and run again"
        ) from error
    return files
