"""The sixteen data sets of the DivPrune paper (CVPR 2025, Section 4), as tasks of lmms-eval.

Sizes are those that the data sets publish; what is there is counted when a run begins.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from divprune.methods.item_context import Modality

TASK_PREFIX = "divprune_paper_"

Requirement = Literal["java", "judge", "egoschema server", "wordnet"]
Statistic = Literal["mean", "f1", "mme"]


@dataclass(frozen=True, slots=True)
class DataSet:
    """A row of the paper's evaluation: a data set, asked and scored in one way.

    Attributes:
        key: what we call it.
        title: the column's heading.
        medium: what the model is shown.
        todays_task: lmms-eval's own task of today.
        metric: the key of the printed score in lmms-eval's results.
        scale: a printed score is the metric times this.
        num_samples: questions.
        mean_answer_tokens: about how long an answer is, for estimates of time.
        needs: what scoring needs beyond Python.
        statistic: how samples make the metric: the "mean" of their scores, the "f1" of yes against no, or "mme", a sum
            over categories.
    """

    key: str
    title: str
    medium: Modality
    todays_task: str
    metric: str
    scale: float
    num_samples: int
    mean_answer_tokens: int
    needs: frozenset[Requirement] = frozenset()
    statistic: Statistic = "mean"

    @property
    def task(self) -> str:
        """The task with the paper's prompt, split and metric."""
        return TASK_PREFIX + self.key


_JAVA: frozenset[Requirement] = frozenset({"java"})
_JUDGE: frozenset[Requirement] = frozenset({"judge"})
_WORDNET: frozenset[Requirement] = frozenset({"wordnet"})
_SERVER: frozenset[Requirement] = frozenset({"egoschema server"})

IMAGE_SETS = (
    DataSet("coco2017", "COCO", "image", "coco2017_cap_val", "coco_CIDEr", 1, 5000, 14, _JAVA),
    DataSet("flickr30k", "Flickr", "image", "flickr30k_test", "flickr_CIDEr", 1, 31783, 14, _JAVA),
    DataSet("gqa", "GQA", "image", "gqa", "exact_match", 100, 12578, 2),
    DataSet("mmbench", "MMB", "image", "mmbench_en_dev", "gpt_eval_score", 1, 4329, 2),
    DataSet("mme", "MME", "image", "mme", "mme_perception_score", 1, 2374, 2, statistic="mme"),
    DataSet("mmmu", "MMMU", "image", "mmmu_val", "mmmu_acc", 100, 900, 2),
    DataSet("nocaps", "NoCaps", "image", "nocaps_val", "nocaps_CIDEr", 1, 4500, 14, _JAVA),
    DataSet("okvqa", "OKVQA", "image", "ok_vqa_val2014", "exact_match", 100, 5046, 2),
    DataSet("pope", "POPE", "image", "pope", "pope_f1_score", 100, 9000, 2, statistic="f1"),
    DataSet("scienceqa", "SQA", "image", "scienceqa_img", "exact_match", 100, 2017, 2),
    DataSet("seedbench", "SEED", "image", "seedbench", "seed_image", 100, 14233, 2),
)
VIDEO_SETS = (
    DataSet("activitynet", "ActivityNet", "video", "activitynetqa", "gpt_eval_accuracy", 1, 8000, 10, _JUDGE),
    DataSet("seedbench_video", "SEED", "video", "seedbench", "seed_video", 100, 3757, 2),
    DataSet(
        "videochatgpt", "VideoChatGPT", "video", "videochatgpt_temporal", "gpt_eval_score_temporal", 1, 499, 60, _JUDGE
    ),
    DataSet("nextqa", "NextQA", "video", "nextqa_oe_test", "WUPS", 1, 9178, 5, _WORDNET),
    DataSet("egoschema", "EgoSchema", "video", "egoschema", "submission", 1, 5031, 2, _SERVER),
)
DATA_SETS = IMAGE_SETS + VIDEO_SETS


def data_set(key: str) -> DataSet:
    """Return the data set of this key, or of this task.

    Raises:
        ValueError: there is none.
    """
    known = {each.key: each for each in DATA_SETS}
    short = key.removeprefix(TASK_PREFIX)
    if short not in known:
        close = get_close_matches(short, known, n=1, cutoff=0.4)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"data set must be one of {', '.join(known)}, got {key!r}{guess}")
    return known[short]
