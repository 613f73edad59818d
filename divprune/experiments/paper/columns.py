"""The columns of the paper's tables: what is measured on what."""

from collections.abc import Sequence
from dataclasses import dataclass

from divprune.evaluation.datasets import IMAGE_SETS, VIDEO_SETS, DataSet, data_set

MEAN, EFFICIENCY, IMAGES = "mean", "efficiency", "pictures"


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        key: what we call it.
        title: its heading.
        data_set: key of the data set whose answers are scored; `MEAN` over the other columns of the row, `EFFICIENCY`
            where time or memory is measured, `IMAGES` where the kept tokens themselves are.
        metric: the key of the score in lmms-eval's results, or of the number in a bench row; empty for a mean.
        scale: a printed number is the metric times this.
        digits: behind the point, as printed.
    """

    key: str
    title: str
    data_set: str
    metric: str
    scale: float
    digits: int = 2

    @property
    def is_score(self) -> bool:
        """Whether it comes from the answers to one data set."""
        return self.data_set not in (MEAN, EFFICIENCY, IMAGES)

    @property
    def is_papers(self) -> bool:
        """Whether it comes from the answers to one of the paper's data sets."""
        return any(self.data_set == each.key for each in (*IMAGE_SETS, *VIDEO_SETS))

    @property
    def percent(self) -> float:
        """What brings its printed numbers to percent, for a mean: CIDEr is printed near 1."""
        return 100.0 if self.metric.endswith("CIDEr") else 1.0

    @property
    def source(self) -> DataSet:
        """Its data set.

        Raises:
            ValueError: it is no score of one.
        """
        return data_set(self.data_set)


def _scored(source: DataSet) -> Column:
    return Column(source.key, source.title, source.key, source.metric, source.scale, 0 if source.key == "mme" else 2)


IMAGE_COLUMNS = tuple(_scored(source) for source in IMAGE_SETS)
_SECOND = Column("activitynet_score", "ActivityNet score", "activitynet", "gpt_eval_score", 1)
VIDEO_COLUMNS = (_SECOND, *(_scored(source) for source in VIDEO_SETS))
EFFICIENCY_COLUMNS = (
    Column("gpu_memory", "GPU GB", EFFICIENCY, "peak_memory_bytes", 1e-9),
    Column("prefill", "prefill s", EFFICIENCY, "prefill_median_seconds", 1, 3),
    Column("end_to_end", "E2E s", EFFICIENCY, "end_to_end_median_seconds", 1),
)
MEAN_COLUMN = Column(MEAN, "mean", MEAN, "", 1)
IMAGES_COLUMN = Column(IMAGES, "max-min distance", IMAGES, "max_min_median_distance", 1, 4)

_ALL = {each.key: each for each in (*IMAGE_COLUMNS, *VIDEO_COLUMNS, *EFFICIENCY_COLUMNS, MEAN_COLUMN, IMAGES_COLUMN)}


def columns(keys: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns of these keys, in their order.

    Raises:
        ValueError: there is no such column.
    """
    for key in keys:
        if key not in _ALL:
            raise ValueError(f"column must be one of {', '.join(_ALL)}, got {key!r}")
    return tuple(_ALL[key] for key in keys)
