"""SampledFrames frames of a video evenly in time: which ones, and when each is shown."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median_low

_JITTER_SECONDS = Fraction(1, 1000)


@dataclass(frozen=True)
class SampledFrames:
    """Sampled frames: the index of each, and its time in seconds after the first frame, if it is known."""

    indices: tuple[int, ...]
    times: tuple[float, ...]


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown.

    Attributes:
        num_frames: how many there are.
        timestamps: of each frame in ticks, ascending, as the container tells; empty if it does not.
        tick: seconds a tick.
        end: when the last frame is over, in ticks.
        rate: frames a second; None if it changes or is unknown.
    """

    num_frames: int
    timestamps: tuple[int, ...] = ()
    tick: Fraction = Fraction(1)
    end: int = 0
    rate: Fraction | None = None

    @classmethod
    def of(
        cls, timestamps: Sequence[int], tick: Fraction, last_duration: int = 0, named_rate: Fraction | None = None
    ) -> "Timeline":
        """Build the timeline of frames with known timestamps, at least one.

        Args:
            timestamps: of all frames, in any order, in ticks.
            tick: seconds a tick.
            last_duration: how long the last frame is shown, in ticks; 0 if unknown.
            named_rate: what the container calls the rate; it is right where the timestamps agree.
        """
        shown = sorted(set(timestamps))
        num_gaps, span = len(shown) - 1, shown[-1] - shown[0]
        if num_gaps == 0:
            return cls(1, tuple(shown), tick, shown[0] + last_duration, named_rate)
        # Containers round timestamps to their ticks.
        slack = max(tick, _JITTER_SECONDS) / tick
        end = shown[-1] + (last_duration or median_low(second - first for first, second in pairwise(shown)))
        most = math.floor(slack * num_gaps)
        if any(abs((each - shown[0]) * num_gaps - span * place) > most for place, each in enumerate(shown)):
            return cls(len(shown), tuple(shown), tick, end)
        rate = num_gaps / (span * tick)
        if named_rate and abs(num_gaps / named_rate - span * tick) <= slack * tick:
            rate = named_rate
        return cls(len(shown), tuple(shown), tick, end, rate)

    @property
    def seconds(self) -> float | None:
        """How long the video is; None if unknown."""
        if self.rate:
            return float(self.num_frames / self.rate)
        return float((self.end - self.timestamps[0]) * self.tick) if self.timestamps else None

    def sample(self, count: int) -> SampledFrames:
        """Take the middles of `count` equal parts of the time, and the frame that is shown at each.

        At a constant rate no frame is taken twice. At a changing one the frames are those that the same video would
        give if it were stored at a constant rate, fine enough for its shortest frame: a frame that is shown for long
        may come several times.
        """
        if self.rate or len(self.timestamps) < 2:
            indices = evenly_spread(self.num_frames, count)
            return SampledFrames(indices, tuple(float(index / self.rate) for index in indices) if self.rate else ())
        start, length = self.timestamps[0], self.end - self.timestamps[0]
        shortest = min(second - first for first, second in pairwise(self.timestamps))
        count = min(count, math.ceil(length / shortest))
        moments = [start + Fraction((2 * part + 1) * length, 2 * count) for part in range(count)]
        indices = tuple(bisect_right(self.timestamps, moment) - 1 for moment in moments)
        # Shown again, a frame is told by the time at which it is still there.
        shown = [
            moment if place and index == indices[place - 1] else Fraction(self.timestamps[index])
            for place, (index, moment) in enumerate(zip(indices, moments, strict=True))
        ]
        return SampledFrames(indices, tuple(float((each - start) * self.tick) for each in shown))


def evenly_spread(total: int, count: int) -> tuple[int, ...]:
    """Return the middles of `count` equal parts of `range(total)`, at most `total` of them."""
    count = min(total, count)
    return tuple((2 * part + 1) * total // (2 * count) for part in range(count))
