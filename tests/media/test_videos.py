"""Videos from files: frames evenly in time, with their true times, or a clear refusal."""

import sys
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divprune.errors import MediaError
from divprune.media import load_video
from divprune.media.timeline import Timeline, evenly_spread
from tests.media.makers import CHANGING, CONSTANT, FILES, image_of, index_of, write_video

AT_ANY_RATE = [suffix for suffix, (_, _, ticks) in FILES.items() if ticks != 25] + ["webp"]
TOO_SHORT = [("ts", 1), ("ts", 2)]  # for the format to be known
MILLISECOND = Fraction(1, 1000)
ROUNDED_SECONDS = 0.002  # timestamps of a constant rate are rounded, the first and the last too
LONGEST_SECONDS = 1.8  # that a frame of CHANGING is shown


def truth(times: Sequence[Fraction], indices: Sequence[int]) -> list[float]:
    return [float(times[index]) for index in indices]


@pytest.mark.parametrize(
    ("suffix", "num_frames"),
    [
        *(
            (suffix, num_frames)
            for suffix in [*FILES, "webp"]
            for num_frames in (1, 2, 50)
            if (suffix, num_frames) not in TOO_SHORT
        ),
        pytest.param("mp4", 6000, marks=pytest.mark.slow),
        pytest.param("webm", 6000, marks=pytest.mark.slow),
    ],
)
def test_a_constant_rate_gives_frames_by_number(tmp_path: Path, suffix: str, num_frames: int) -> None:
    times = [Fraction(index, 25) for index in range(num_frames)]
    medium = load_video(write_video(tmp_path / f"video.{suffix}", times), 8)
    expected = evenly_spread(num_frames, 8)
    assert tuple(index_of(frame) for frame in medium.frames) == medium.frame_indices == expected
    assert medium.num_frames == num_frames
    assert medium.note == ""
    if num_frames > 1:
        assert medium.times == pytest.approx(truth(times, expected))
        assert medium.frames_per_second == 25
        assert medium.seconds == num_frames / 25


@pytest.mark.parametrize("suffix", AT_ANY_RATE)
def test_a_changing_rate_gives_frames_by_time(tmp_path: Path, suffix: str) -> None:
    medium = load_video(write_video(tmp_path / f"video.{suffix}", CHANGING), 8)
    assert tuple(index_of(frame) for frame in medium.frames) == medium.frame_indices
    assert medium.times == pytest.approx(truth(CHANGING, medium.frame_indices))
    assert medium.frames_per_second is None
    assert medium.seconds is not None
    # Each is the one shown in the middle of its eighth of the time.
    for place, time in enumerate(medium.times):
        middle = (2 * place + 1) * medium.seconds / 16
        assert time <= middle < time + LONGEST_SECONDS
    rate, indices, total = medium.clock
    assert rate is not None
    assert [index / rate for index in indices] == pytest.approx(list(medium.times))
    assert total / rate == pytest.approx(medium.seconds, abs=ROUNDED_SECONDS)


@pytest.mark.parametrize("suffix", AT_ANY_RATE)
def test_a_frame_that_is_shown_for_long_comes_again(tmp_path: Path, suffix: str) -> None:
    times = [Fraction(0), Fraction(1, 2), Fraction(9, 2), Fraction(5)]
    medium = load_video(write_video(tmp_path / f"video.{suffix}", times), 8)
    assert tuple(index_of(frame) for frame in medium.frames) == medium.frame_indices
    assert medium.frame_indices.count(1) >= 5
    # It is told by times at which it is there.
    again = [time for time, index in zip(medium.times, medium.frame_indices, strict=True) if index == 1]
    assert all(times[1] <= time < times[2] for time in again)
    assert all(earlier < later for earlier, later in pairwise(medium.times))


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_a_turned_video_comes_upright(tmp_path: Path, turned: int) -> None:
    medium = load_video(write_video(tmp_path / "video.mp4", CONSTANT, turned=turned), 4)
    assert tuple(index_of(frame) for frame in medium.frames) == medium.frame_indices
    assert medium.frames[0].size == image_of(0).size


@pytest.mark.parametrize(
    ("suffix", "options", "reads_on"),
    [
        ("mp4", {"movflags": "faststart"}, True),
        ("mkv", {}, True),
        ("webm", {}, True),
        ("gif", {}, True),
        ("mp4", {}, False),
        ("webp", {}, False),
    ],
)
@pytest.mark.parametrize("times", [CONSTANT, CHANGING], ids=["constant", "changing"])
def test_a_cut_video_says_how_much_could_be_read(
    tmp_path: Path, suffix: str, options: dict[str, str], reads_on: bool, times: list[Fraction]
) -> None:
    whole = write_video(tmp_path / f"whole.{suffix}", times, options=options).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: len(whole) * 3 // 4])
    if not reads_on:
        # What tells where frames are lies at the end, or the decoder wants it all.
        with pytest.raises(MediaError, match="not a video that can be decoded"):
            load_video(path, 4)
        return
    medium = load_video(path, 4)
    assert medium.seconds is not None
    assert 0 < medium.num_frames < len(times)
    assert [index_of(frame) for frame in medium.frames[:-1]] == list(medium.frame_indices[:-1])
    of_all = "" if suffix == "gif" else " of "
    assert f"{path} is cut off or damaged: the first {medium.seconds:.1f} s{of_all}" in medium.note
    assert medium.note.endswith("could be read")


def test_frames_that_cannot_be_decoded_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "video.mp4", CONSTANT)
    listed = Timeline.of([640 * index for index in range(500)], Fraction(1, 16000), 640, Fraction(25))
    from divprune.media import readers, videos

    reader = readers.Reader(lambda path: (listed, 0.0), readers.CONTAINER.decode)
    monkeypatch.setattr(videos, "CONTAINER", reader)
    medium = load_video(path, 4)
    assert medium.frame_indices == evenly_spread(50, 4)
    assert medium.note == f"{path} is cut off or damaged: the first 2.0 s of 20.0 s could be read"


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    text, sound = tmp_path / "notes.mp4", tmp_path / "sound.m4a"
    text.write_text("not a video")
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.rate = 16000
        container.mux([*stream.encode(silence), *stream.encode()])
    with pytest.raises(MediaError, match="not a video that can be decoded"):
        load_video(text, 4)
    with pytest.raises(MediaError, match="it has no video stream"):
        load_video(sound, 4)
    for path, reason in ((tmp_path / "none.mp4", "no such video"), (tmp_path, "not a file")):
        with pytest.raises(MediaError, match=reason):
            load_video(path, 4)


def test_frames_are_no_larger_than_models_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "video.mp4", CONSTANT)
    width, height = image_of(0).size
    monkeypatch.setattr("divprune.media.videos.MAX_PIXELS_AT_ONCE", 4 * width * height // 4)
    sizes = {frame.size for frame in load_video(path, 4).frames}
    assert sizes == {(width // 2, height // 2)}
    monkeypatch.setattr("divprune.media.readers._MAX_FRAME_PIXELS", width * height - 1)
    with pytest.raises(MediaError, match="its frames have more than"):
        load_video(path, 4)


def test_missing_av_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "video.mp4", CONSTANT)
    monkeypatch.setitem(sys.modules, "av.error", None)
    with pytest.raises(MediaError, match=r'pip install "divprune\[video\]"'):
        load_video(path, 4)


@pytest.mark.parametrize(("total", "count"), [(1, 1), (8, 8), (3, 8), (30, 4), (1000, 7)])
def test_spread_is_even_and_unique(total: int, count: int) -> None:
    indices = evenly_spread(total, count)
    assert len(indices) == min(total, count)
    assert tuple(sorted(set(indices))) == indices
    assert set(indices) <= set(range(total))
    gaps = np.diff([-indices[0] - 1, *indices, 2 * total - indices[-1] - 1])
    assert gaps.max() - gaps.min() <= 1


@given(st.integers(1, 200), st.integers(1, 40), st.sampled_from([1, 24, 25, 30, 50]), st.sampled_from([1000, 90000]))
def test_rounded_timestamps_of_a_constant_rate_are_known(total: int, count: int, rate: int, ticks: int) -> None:
    timestamps = [round(Fraction(index * ticks, rate)) for index in range(total)]
    timeline = Timeline.of(timestamps, Fraction(1, ticks), named_rate=Fraction(rate))
    assert timeline.rate == rate
    assert timeline.sample(count).indices == evenly_spread(total, count)


@given(st.lists(st.integers(1, 2000), min_size=2, max_size=60), st.integers(1, 40))
def test_a_changing_rate_is_sampled_as_its_constant_copy(durations: list[int], count: int) -> None:
    timestamps = [sum(durations[:place]) for place in range(len(durations))]
    timeline = Timeline.of(timestamps, MILLISECOND, durations[-1])
    sample = timeline.sample(count)
    shown = [frame for frame, duration in enumerate(durations) for _ in range(duration)]
    if timeline.rate is None:
        finest = min(durations[:-1])
        expected = min(count, -(-sum(durations) // finest))
        assert [shown[(2 * part + 1) * len(shown) // (2 * expected)] for part in range(expected)] == list(
            sample.indices
        )
    assert all(earlier < later for earlier, later in pairwise(sample.times))
    slack = ROUNDED_SECONDS if timeline.rate else 0
    for index, time in zip(sample.indices, sample.times, strict=True):
        assert timestamps[index] / 1000 - slack <= time
        assert timeline.rate or time < (timestamps[index] + durations[index]) / 1000
