"""How tests write small data sets: pictures are generated scenes, clips a few frames encoded by PyAV."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import datasets
from datasets import Features, Value
from PIL import Image as Pictures

from divprune.embedded import scene

TEXT, NUMBER = Value("string"), Value("int64")
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
CAPTION = "Provide a one-sentence caption for the provided image."


@dataclass(frozen=True)
class Made:
    """A small data set.

    Attributes:
        key: of the data set.
        split: that the task evaluates.
        features: columns and types.
        documents: rows.
        right: answers that are scored as right, one a row that the task asks.
        wrong: answers that are not.
        prompts: word for word, one a row that the task asks.
        scores: of the metric, in its unit: all right, the first half right, all wrong.
        configuration: the folder within the data set's.
        clips: names of clips without ending.
        num_pictures: that each question shows.
    """

    key: str
    split: str
    features: dict[str, Any]
    documents: list[dict[str, Any]]
    right: list[str]
    wrong: list[str]
    prompts: list[str]
    scores: tuple[float, float, float] = (1.0, 0.5, 0.0)
    configuration: str | None = None
    clips: list[str] = field(default_factory=list)
    num_pictures: list[int] | None = None

    @property
    def half(self) -> list[str]:
        middle = len(self.right) // 2
        return self.right[:middle] + self.wrong[middle:]

    def write(self, data: Path) -> Path:
        """Write the data set into its folder of a folder of data; return that folder."""
        folder = data / self.key
        inner = folder / self.configuration if self.configuration else folder
        inner.mkdir(parents=True, exist_ok=True)
        table(self.documents, self.features).to_parquet(inner / f"{self.split}-00000-of-00001.parquet")
        for place, name in enumerate(self.clips):
            write_clip(folder / "videos" / f"{name}.mp4", place)
        return folder


def table(documents: list[dict[str, Any]], features: dict[str, Any]) -> datasets.Dataset:
    return datasets.Dataset.from_list(documents, features=Features(features))


def picture(seed: int) -> Pictures.Image:
    return scene(seed).image


def write_clip(path: Path, seed: int, num_frames: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for place in range(num_frames):
            frame = av.VideoFrame.from_image(picture(seed + place % 2).resize((64, 64)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
