"""Questions about a generated video whose answers need its frames."""

from collections.abc import Mapping

from divprune.embedded.questions import Asked, ExistenceWriter, Question, once, question_generator
from divprune.embedded.scenes import SHAPES
from divprune.embedded.templates import VIDEO_KINDS, VIDEO_TEMPLATES
from divprune.embedded.videos import Video, VideoObject
from divprune.embedded.vocabulary import plural

_VIDEO_STREAM = 1


def video_questions(video: Video, per_kind: int | Mapping[str, int] = 1, stream: int = 0) -> list[Question]:
    """Ask about a video; deterministic, and balanced where the answer is yes or no.

    Existence, count and colour are asked of all that the video ever shows, of which no frame shows everything. Motion
    is asked of an object that moves. Order asks which colour appears first or last.

    Args:
        video: what is asked about.
        per_kind: how many of each kind, or a number for each kind; as for `questions`, existence gives twice as many,
            and kinds fewer where the video has not that many objects to ask about.
        stream: draws other questions about the same video.

    Returns:
        The questions, in the order of VIDEO_KINDS.
    """
    numbers = per_kind if isinstance(per_kind, Mapping) else dict.fromkeys(VIDEO_KINDS, per_kind)
    writer = _VideoWriter(video, stream)
    asked = [
        *writer.existence(numbers["existence"]),
        *writer.count(numbers["count"]),
        *writer.color(numbers["color"]),
        *writer.motion(numbers["motion"]),
        *writer.order(numbers["order"]),
    ]
    return [Question(kind, prompt, answer, video.seed, video.split) for kind, prompt, answer in asked]


class _VideoWriter(ExistenceWriter):
    """Draws the questions of each kind for one video."""

    def __init__(self, video: Video, stream: int) -> None:
        generator = question_generator(video.split, video.seed, stream, _VIDEO_STREAM)
        super().__init__({(item.color, item.shape) for item in video.objects}, VIDEO_TEMPLATES, generator)
        self.objects = video.objects

    def _asked(self, kind: str, answer: str, **fields: str) -> Asked:
        return kind, self.pick(VIDEO_TEMPLATES[kind]).format(**fields), answer

    def count(self, number: int) -> list[Asked]:
        """Count all objects, or those of a shape; now and then of one that is absent."""
        return [self._asked("count", str(amount), things=things) for things, amount in map(self._things, range(number))]

    def _things(self, _: int) -> tuple[str, int]:
        draw, any_shape = self.generator.random(), self.generator.random() < 0.2
        if draw < 0.25:
            return self.pick(("objects", "things", "shapes")), len(self.objects)
        shape = self.pick(SHAPES if any_shape else [item.shape for item in self.objects])
        return plural(shape), sum(item.shape == shape for item in self.objects)

    def color(self, number: int) -> list[Asked]:
        """Return the colour of a shape that occurs once."""
        alone = once([item.shape for item in self.objects])
        chosen = self.sample([item for item in self.objects if item.shape in alone], number)
        return [self._asked("color", item.color, shape=item.shape) for item in chosen]

    def motion(self, number: int) -> list[Asked]:
        """Return where an object moves."""
        moving = [(item, item.direction) for item in self.objects if item.direction is not None]
        return [self._asked("motion", way, name=item.name) for item, way in self.sample(moving, number)]

    def order(self, number: int) -> list[Asked]:
        """Return the colour that appears first or last."""
        by_arrival: list[VideoObject] = sorted(self.objects, key=lambda item: item.first_frame)
        ends = [("first", by_arrival[0].color), ("last", by_arrival[-1].color)]
        return [self._asked("order", color, place=place) for place, color in self.sample(ends, number)]
