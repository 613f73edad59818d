"""Answer a batch of questions with a pruned model: questions in, answers out, nothing asked twice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from divprune.budget import budget_or_default
from divprune.config import Positions
from divprune.errors import argument_errors
from divprune.outputs import files_of, locked, safe_output
from divprune.progress import SILENT, Progress
from divprune.serving.answer_lines import ANSWERS
from divprune.serving.answers import Answer, AnswerFile
from divprune.serving.batch import Workers, answers_here, answers_on_workers
from divprune.serving.engine import EngineSettings
from divprune.serving.questions import BatchQuestion, read_questions
from divprune.serving.vllm_installed import require_vllm


@dataclass(frozen=True)
class BatchOptions:
    """What is asked, of whom, and where answers go.

    Attributes:
        model: checkpoint directory or hub name.
        source: a folder of images, or a JSONL file of questions.
        output: a JSONL file; what is answered there is not asked again.
        flags: that vLLM takes.
        prompt: what to ask where the source does not say.
        method: as `get_method` reads it.
        keep_ratio: fraction of each image's tokens kept, in (0, 1]; 0.098 if `num_keep` is None too.
        num_keep: how many are kept of each image, instead.
        positions: as for `pruned_overrides`.
        max_new_tokens: length limit of an answer.
        temperature: 0 for the likeliest answer.
        workers: engines; more than one run under Ray.
        gpus_per_worker: None for 1 if there are any.
        ray_address: of a Ray cluster to run on, such as "auto".
        recursive: whether a folder's subfolders are read too.
        trust_names: whether an image is known by path, size and time of change, so that going on reads none.
    """

    model: str
    source: Path
    output: Path
    flags: tuple[str, ...] = ()
    prompt: str | None = None
    method: str = "divprune"
    keep_ratio: float | None = None
    num_keep: int | None = None
    positions: Positions | None = None
    max_new_tokens: int = 64
    temperature: float = 0.0
    workers: int = 1
    gpus_per_worker: float | None = None
    ray_address: str | None = None
    recursive: bool = False
    trust_names: bool = False

    @property
    def settings(self) -> EngineSettings:
        """What each engine is started with.

        Raises:
            ArgumentError: the budget is out of range.
        """
        kept = budget_or_default(self.keep_ratio, self.num_keep)
        return EngineSettings(
            self.model,
            self.method,
            kept.keep_ratio,
            kept.num_keep,
            self.max_new_tokens,
            self.temperature,
            self.flags,
            self.positions,
        )


@dataclass(frozen=True)
class BatchResult:
    """How many questions there were, and how many of them could not be asked: the output says why."""

    num_questions: int
    num_failed: int


def answer_batch(options: BatchOptions, progress: Progress = SILENT) -> BatchResult:
    """Answer what no earlier run has answered.

    Raises:
        ArgumentError: an argument cannot work.
        DivpruneError: the source, the output or the engine is at fault.
    """
    settings = options.settings
    questions = read_questions(options.source, options.prompt, recursive=options.recursive, progress=progress)
    images = [image for question in questions for image in question.files]
    safe_output("output", options.output, ANSWERS, (options.source, *images, *files_of(options.model)))
    with locked("output", options.output):
        with progress.working("reading images and earlier answers"):
            file = AnswerFile(options.output, str(settings), questions, trust_names=options.trust_names)
        _tell(file, len(questions), progress)
        require_vllm()
        failed = 0
        with progress.counting("questions", len(file.left)) as advance:
            for answer in _answers(options, settings, file.left) if file.left else ():
                file.add(answer)
                failed += answer.error is not None
                advance(1)
        file.finish()
        if file.num_unsettled:
            progress.note(
                f"{file.num_unsettled} of {len(questions)} images were changed while the batch ran; the same command "
                "asks about them again"
            )
    return BatchResult(len(questions), failed)


def _tell(file: AnswerFile, num_questions: int, progress: Progress) -> None:
    """Say what an earlier run has left, and what becomes of it."""
    num_answered = num_questions - len(file.left)
    if num_answered:
        progress.note(f"{num_answered} of {num_questions} are answered already and not asked again")
    if file.num_changed:
        progress.note(f"{file.num_changed} of {num_questions} have another prompt or image now and are asked again")
    if file.num_unread:
        progress.note(
            f"{file.num_unread} of {num_questions} were answered under `trust_names`, so nobody knows about which "
            "content, and are asked again"
        )
    if file.num_gone:
        progress.note(
            f"{file.num_gone} answers in {file.path} are about questions that are not asked any more, under ids that "
            "others have now; they are taken out"
        )
    if file.num_other:
        progress.note(f"{file.path} also answers {file.num_other} questions that are not in this batch; they stay")


def _answers(options: BatchOptions, settings: EngineSettings, questions: Sequence[BatchQuestion]) -> Iterator[Answer]:
    with argument_errors():
        if options.workers == 1 and options.ray_address is None:
            yield from answers_here(settings, questions)
        else:
            workers = Workers(options.workers, _gpus_each(options.gpus_per_worker), options.ray_address)
            yield from answers_on_workers(settings, questions, workers)


def _gpus_each(given: float | None) -> float:
    if given is not None:
        return given
    import torch

    return float(torch.cuda.is_available())
