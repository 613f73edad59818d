"""A batch of questions on one engine, or on many in a Ray cluster."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from divprune.errors import MissingDependencyError
from divprune.media import is_url
from divprune.serving.answers import Answer
from divprune.serving.engine import EngineSettings, PrunedEngine
from divprune.serving.questions import BatchQuestion

QUESTIONS_AT_ONCE = 32
"""How many an engine is handed together, if their images take no more than `MAX_PIXELS_AT_ONCE`."""


@dataclass(frozen=True)
class Workers:
    """Engines of a Ray cluster.

    Attributes:
        count: how many.
        gpus_each: GPUs of each; 0 on machines without.
        address: of the cluster, such as "auto" on one of its machines; None to start one on this machine.
    """

    count: int
    gpus_each: float = 0
    address: str | None = None


def answers_here(settings: EngineSettings, questions: Sequence[BatchQuestion]) -> Iterator[Answer]:
    """Answer in this process.

    Args:
        settings: of the engine.
        questions: at least one.

    Yields:
        An answer a question, in their order.
    """
    engine = PrunedEngine(settings)
    for first in range(0, len(questions), QUESTIONS_AT_ONCE):
        yield from engine.answer(questions[first : first + QUESTIONS_AT_ONCE])


def answers_on_workers(
    settings: EngineSettings, questions: Sequence[BatchQuestion], workers: Workers
) -> Iterator[Answer]:
    """Answer on several engines, each an actor of Ray Data; the images are read where the engine runs.

    A worker that dies is started again, and its questions are asked again.

    Args:
        settings: of each engine.
        questions: at least one; the paths must be valid on every machine.
        workers: where and how many.

    Yields:
        An answer a question, as they come.

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingDependencyError("several workers need Ray: pip install 'divprune[vllm,ray]'") from None
    ray.init(address=workers.address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        blocks = -(-len(questions) // QUESTIONS_AT_ONCE)
        rows = ray.data.from_items([_as_row(question) for question in questions], override_num_blocks=blocks)
        answered = rows.map_batches(
            _Worker,
            fn_constructor_args=(settings,),
            batch_size=QUESTIONS_AT_ONCE,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=workers.count),
            num_cpus=1,
            num_gpus=workers.gpus_each,
        )
        for row in answered.iter_rows():
            yield Answer(**{**row, "images": tuple(row["images"])})
    finally:
        ray.shutdown()


class _Worker:
    """What Ray runs."""

    def __init__(self, settings: EngineSettings) -> None:
        self._engine = PrunedEngine(settings)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        questions = [_of_row(*row) for row in zip(batch["id"], batch["images"], batch["prompt"], strict=True)]
        answers = [asdict(answer) for answer in self._engine.answer(questions)]
        return {name: [answer[name] for answer in answers] for name in answers[0]}


def _as_row(question: BatchQuestion) -> dict[str, Any]:
    paths = [image if isinstance(image, str) else str(image.absolute()) for image in question.images]
    return {"id": question.id, "images": paths, "prompt": question.prompt}


def _of_row(name: str, images: Sequence[str], prompt: str) -> BatchQuestion:
    return BatchQuestion(
        str(name), tuple(str(each) if is_url(each) else Path(str(each)) for each in images), str(prompt)
    )
