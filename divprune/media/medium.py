"""One image or one video in memory, with what is known of its time."""

from dataclasses import dataclass
from typing import Literal

from PIL import Image

from divprune.progress import Progress

Kind = Literal["image", "video"]
_TICKS_PER_SECOND = 1000


@dataclass(frozen=True)
class Medium:
    """One image or one video.

    Attributes:
        name: what the user calls it: the path as given (a URL shortened), or the name of a bundled scene.
        kind: "image" or "video".
        frames: RGB images; one for an image, the sampled frames of a video.
        frame_indices: which frame of the video each sampled one is; twice the same where a frame is shown for long.
        frames_per_second: of the video; None for an image, and if it is unknown or changes.
        num_frames: how many frames the video has.
        times: when each sampled frame is shown, in seconds after the first frame; empty if unknown, and for an image.
        seconds: how long the video is; None if unknown, and for an image.
        note: what the user should know of how it was read; empty if there is nothing.
    """

    name: str
    kind: Kind
    frames: tuple[Image.Image, ...]
    frame_indices: tuple[int, ...] = (0,)
    frames_per_second: float | None = None
    num_frames: int = 1
    times: tuple[float, ...] = ()
    seconds: float | None = None
    note: str = ""

    def tell(self, progress: Progress) -> None:
        """Say the note, if there is one."""
        if self.note:
            progress.note(self.note)

    @property
    def clock(self) -> tuple[float | None, tuple[int, ...], int]:
        """Rate, indices and total in which every model family can be told the times.

        Families derive the time of a frame as index / rate, or the seconds between two sampled frames as
        total / (rate x number of sampled frames). At a changing rate the indices count milliseconds, so that both
        come out true.
        """
        if self.frames_per_second is not None or self.seconds is None:
            return self.frames_per_second, self.frame_indices, self.num_frames
        ticks = tuple(round(time * _TICKS_PER_SECOND) for time in self.times)
        return float(_TICKS_PER_SECOND), ticks, round(self.seconds * _TICKS_PER_SECOND)
