"""Local data in the schemas of the hub's data sets, with answers of which it is known how they are scored.

Columns and types are those that the task files read, and most others of the data sets.
"""

from pathlib import Path

from tests.harness.caption_sets import coco2017, flickr30k, gqa, nocaps, write_gqa_pictures
from tests.harness.choice_sets import mmbench, mme, mmmu, okvqa, pope, scienceqa, seedbench
from tests.harness.data_making import Made
from tests.harness.video_sets import activitynet, egoschema, nextqa, videochatgpt

MADE: dict[str, Made] = {
    **{
        each.key: each for each in (coco2017(), flickr30k(), gqa(), mmbench(), mme(), mmmu(), nocaps(), okvqa(), pope())
    },
    **{each.key: each for each in (scienceqa(), seedbench(), activitynet(), videochatgpt(), nextqa(), egoschema())},
    "seedbench_video": seedbench("video"),
    "egoschema_subset": egoschema(subset=True),
}


def write_all(data: Path) -> Path:
    """Write every data set into the folder."""
    for key, made in MADE.items():
        if key != "seedbench_video":
            made.write(data)
    write_gqa_pictures(data)
    return data
