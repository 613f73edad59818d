"""What `divprune batch` does: questions in, answers out, nothing asked twice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from divprune.cli.failures import CommandError
from divprune.cli.options import checked_budget
from divprune.cli.outputs import check_not_read
from divprune.cli.screen import Screen, advance
from divprune.errors import DivpruneError
from divprune.serving.answers import Answer, AnswerFile
from divprune.serving.batch import Workers, answers_here, answers_on_workers
from divprune.serving.engine import EngineSettings, require_vllm
from divprune.serving.questions import Question, read_questions


@dataclass(frozen=True)
class BatchOptions:
    """The arguments of `divprune batch`, as typed."""

    model: str
    source: Path
    output: Path
    flags: tuple[str, ...]
    prompt: str | None
    method: str
    keep_ratio: float | None
    num_keep: int | None
    max_new_tokens: int
    temperature: float
    workers: int
    gpus_per_worker: float | None
    ray_address: str | None

    @property
    def settings(self) -> EngineSettings:
        """What each engine is started with.

        Raises:
            CommandError: the budget is out of range.
        """
        kept = checked_budget(self.keep_ratio, self.num_keep)
        return EngineSettings(
            self.model,
            self.method,
            kept.keep_ratio,
            kept.num_keep,
            self.max_new_tokens,
            self.temperature,
            self.flags,
        )


def answer_batch(options: BatchOptions, screen: Screen) -> None:
    """Answer what no earlier run has answered.

    Raises:
        CommandError: an option cannot work, or some questions could not be asked.
        DivpruneError: the input, the output or the engine is at fault.
    """
    settings = options.settings
    questions = read_questions(options.source, options.prompt)
    images = (image for question in questions for image in question.images)
    check_not_read("--output", options.output, (options.source, *images), "answers.jsonl")
    with screen.working("reading images and earlier answers"):
        file = AnswerFile(options.output, str(settings), questions)
    _tell(file, len(questions), screen)
    require_vllm()
    failed = 0
    with screen.counting("questions", len(file.left)) as bar:
        for answer in _answers(options, settings, file.left) if file.left else ():
            file.add(answer)
            failed += answer.error is not None
            advance(bar)
    file.finish()
    screen.show(f"{len(questions) - failed} of {len(questions)} questions answered: {options.output}")
    screen.result({"output": str(options.output), "num_questions": len(questions), "num_failed": failed})
    if failed:
        raise CommandError(
            f"{failed} of {len(questions)} questions could not be asked; {options.output} says why, and the same "
            "command tries them again"
        )


def _tell(file: AnswerFile, num_questions: int, screen: Screen) -> None:
    """Say what an earlier run has left, and what becomes of it."""
    num_answered = num_questions - len(file.left)
    if num_answered:
        screen.note(f"{num_answered} of {num_questions} are answered already and not asked again")
    if file.num_changed:
        screen.note(f"{file.num_changed} of {num_questions} have another prompt or image now and are asked again")
    if file.num_other:
        screen.note(f"{file.path} also answers {file.num_other} questions that are not in this batch; they stay")


def _answers(options: BatchOptions, settings: EngineSettings, questions: Sequence[Question]) -> Iterator[Answer]:
    try:
        if options.workers == 1 and options.ray_address is None:
            yield from answers_here(settings, questions)
        else:
            workers = Workers(options.workers, _gpus_each(options.gpus_per_worker), options.ray_address)
            yield from answers_on_workers(settings, questions, workers)
    except DivpruneError:
        raise
    except (ValueError, TypeError) as error:
        raise CommandError(" ".join(str(error).split())) from None


def _gpus_each(asked: float | None) -> float:
    if asked is not None:
        return asked
    import torch

    return float(torch.cuda.is_available())
