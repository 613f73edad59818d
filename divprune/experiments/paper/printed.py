"""Every number that the DivPrune paper prints (CVPR 2025, arXiv 2503.02175): Tables 1 to 3 and the ablations.

Scores are in the paper's own units: CIDEr near 1, MME in points, everything else in percent, judges' scores of 0 to 5.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from divprune.experiments.paper.columns import EFFICIENCY_COLUMNS, IMAGE_COLUMNS, VIDEO_COLUMNS

TableName = Literal["table1", "table2", "table3", "ablations"]

LLAVA_7B, LLAVA_13B, LLAVA_16, LLAVA_VIDEO = "llava-1.5-7b", "llava-1.5-13b", "llava-1.6-7b", "llava-next-video-7b"


@dataclass(frozen=True, slots=True)
class PrintedRow:
    """A row of one of the paper's tables.

    Attributes:
        table: which.
        model: the architecture, as `divprune.efficiency` names it.
        label: how the paper calls the row.
        flop_percent: its TFLOP ratio in percent; None if it is not printed, or varies from image to image.
        values: what is printed, by the key of the column.
        tflops: the TFLOPs of a prefill as the paper counts them (multiply-accumulates); None if it is not printed.
        is_trained: whether the row needs weights that were trained for it, so that it is shown as reference only.
        varies: whether the paper prints "varies" instead of a TFLOP ratio.
    """

    table: TableName
    model: str
    label: str
    flop_percent: float | None
    values: Mapping[str, float]
    tflops: float | None = None
    is_trained: bool = False
    varies: bool = False


_IMAGE_KEYS = tuple(column.key for column in IMAGE_COLUMNS)
_VIDEO_KEYS = tuple(column.key for column in (*VIDEO_COLUMNS, *EFFICIENCY_COLUMNS))
_LAYER_KEYS = ("mmbench", "mmmu", "pope", "scienceqa", "mean")


def _values(keys: Iterable[str], numbers: str) -> Mapping[str, float]:
    return MappingProxyType(dict(zip(keys, map(float, numbers.split()), strict=True)))


def _accuracy(model: str, label: str, ratio: float | None, numbers: str, is_trained: bool = False) -> PrintedRow:
    values = _values(_IMAGE_KEYS, numbers)
    return PrintedRow("table1", model, label, ratio, values, is_trained=is_trained, varies=ratio is None)


def _video(label: str, tflops: float, ratio: float, numbers: str) -> PrintedRow:
    return PrintedRow("table2", LLAVA_VIDEO, label, ratio, _values(_VIDEO_KEYS, numbers), tflops)


def _layer(label: str, numbers: str) -> PrintedRow:
    return PrintedRow("table3", LLAVA_7B, label, None, _values(_LAYER_KEYS, numbers))


def _ablation(label: str, mean: float) -> PrintedRow:
    return PrintedRow("ablations", LLAVA_7B, label, None, MappingProxyType({"mean": mean}))


# COCO Flickr GQA MMB MME MMMU NoCaps OKVQA POPE SQA SEED
TABLE1 = (
    _accuracy(LLAVA_7B, "Original", 100, "1.10 0.75 61.96 64.09 1506 36.44 1.06 53.39 85.84 69.41 66.17"),
    _accuracy(LLAVA_7B, "VTW", 18.46, "0.05 0.03 38.94 21.31 681 32.60 0.03 18.64 25.35 65.29 36.13"),
    _accuracy(LLAVA_7B, "FastV", 15.69, "0.06 0.03 38.73 20.62 696 32.00 0.04 18.32 32.84 65.15 35.69"),
    _accuracy(LLAVA_7B, "DivPrune", 15.63, "0.96 0.62 56.85 59.19 1328 35.89 0.92 46.98 86.02 68.27 59.47"),
    _accuracy(LLAVA_7B, "PruMerge", None, "0.77 0.50 51.30 54.47 1259 35.11 0.73 41.74 66.89 68.91 53.26"),
    _accuracy(LLAVA_7B, "DivPrune*", None, "0.91 0.56 55.25 58.16 1330 35.44 0.87 44.38 83.06 67.87 57.88"),
    _accuracy(LLAVA_7B, "FitPrune", 15.65, "0.90 0.56 52.39 57.65 1197 36.00 0.86 42.53 60.89 68.02 54.84"),
    _accuracy(LLAVA_7B, "M3", 15.63, "1.00 0.67 60.81 65.81 1391 31.80 0.95 55.12 86.33 64.65 64.93", True),
    _accuracy(LLAVA_7B, "PruMerge-LoRA", None, "0.96 0.63 55.96 59.88 1334 34.89 0.90 47.99 77.13 68.32 57.93", True),
    _accuracy(LLAVA_13B, "Original", 100, "1.16 0.80 63.33 68.64 1522 35.67 1.09 58.28 85.99 72.88 66.82"),
    _accuracy(LLAVA_13B, "VTW", 16.16, "0.08 0.05 39.71 21.91 622 32.10 0.05 22.49 0.40 66.24 38.59"),
    _accuracy(LLAVA_13B, "FastV", 15.73, "0.38 0.18 44.98 37.80 942 35.11 0.33 32.14 30.02 69.96 44.95"),
    _accuracy(LLAVA_13B, "DivPrune", 15.71, "1.00 0.66 57.29 63.40 1407 34.89 0.95 53.29 83.43 72.34 62.04"),
    _accuracy(LLAVA_13B, "PruMerge", None, "0.80 0.53 52.01 58.93 1256 36.56 0.77 49.15 64.36 72.53 56.10"),
    _accuracy(LLAVA_13B, "DivPrune*", None, "0.94 0.59 56.09 61.77 1344 34.89 0.91 50.86 79.60 71.34 60.00"),
    _accuracy(LLAVA_16, "Original", 100, "1.00 0.68 64.28 67.01 1520 36.44 0.88 44.20 86.38 70.15 70.16"),
    _accuracy(LLAVA_16, "VTW", 11.23, "0.06 0.03 38.62 19.76 606 31.30 0.03 8.66 7.13 65.74 37.48"),
    _accuracy(LLAVA_16, "FastV", 11.30, "0.06 0.03 38.79 20.36 619 32.56 0.04 8.80 7.78 65.49 37.62"),
    _accuracy(LLAVA_16, "DivPrune", 10.79, "0.89 0.61 58.69 63.49 1362 37.11 0.76 41.92 82.97 68.57 64.11"),
    _accuracy(LLAVA_16, "M3", 10.79, "1.01 0.67 62.97 69.16 1490 35.00 0.85 57.49 87.44 69.51 68.49", True),
)

# ActivityNet score and accuracy, SEED, VideoChatGPT, NextQA, EgoSchema; GPU memory in GB, prefill and whole answer in
# seconds, both measured on VideoChatGPT's 499 questions on one V100.
TABLE2 = (
    _video("Original", 6.539, 100, "2.67 48.10 38.7 2.16 26.05 41.8 14.06 0.330 4.37"),
    _video("VTW", 1.124, 16.97, "1.61 26.84 29.39 1.19 18.66 25.42 13.63 0.150 3.43"),
    _video("FastV", 0.943, 14.20, "1.95 33.91 32.98 1.44 22.51 29.14 13.57 0.150 3.63"),
    _video("DivPrune", 0.937, 14.10, "2.56 45.90 37.00 1.92 24.48 39.76 13.51 0.161 3.39"),
)

# MMB MMMU POPE SQA mean, DivPrune before or inside the LLM at equal FLOPs.
TABLE3 = (
    _layer("layer 0", "59.19 35.89 86.02 68.27 62.34"),
    _layer("layer 1", "59.02 34.89 80.67 67.18 60.44"),
    _layer("layer 2", "54.90 34.22 69.27 69.56 56.99"),
    _layer("layer 3", "23.97 32.67 31.82 65.94 38.60"),
)

# The same mean of four.
ABLATIONS = (
    _ablation("cosine", 62.34),
    _ablation("l2 distance", 62.22),
    _ablation("l1 distance", 61.94),
    _ablation("random tokens", 56.66),
    _ablation("min-max", 46.53),
)

PRINTED: tuple[PrintedRow, ...] = TABLE1 + TABLE2 + TABLE3 + ABLATIONS


def printed_row(table: str, model: str, label: str) -> PrintedRow | None:
    """Return the row of a table, None if the paper has none like it."""
    return next((row for row in PRINTED if (row.table, row.model, row.label) == (table, model, label)), None)
