"""Estimate what runs take: questions, operations, hours on a GPU, and what must be at hand."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from divprune.budget import Budget
from divprune.config import PruningConfig
from divprune.efficiency.decoding import decode_flop, num_weights
from divprune.efficiency.flops import Accounting, compare
from divprune.efficiency.schedule import DropSchedule, schedule_of
from divprune.efficiency.shapes import GATED_DECODERS
from divprune.efficiency.workloads import Workload
from divprune.evaluation.runs import UNPRUNED, EvaluationRun
from divprune.experiments.paper.columns import EFFICIENCY, Column
from divprune.experiments.paper.presets import Entry
from divprune.experiments.paper.settings import Setting, recipe_file
from divprune.experiments.subjects import Subject
from divprune.methods import Method, RandomTokens, get_method
from divprune.methods.item_context import Modality

PEAK_SHARE = 0.4
"""Of a GPU's peak, by the paper's own measurement: the prefill of LLaVA-NeXT-Video, 6.539 T multiply-accumulates by
Eq. 5 and 16.6 T operations exactly, takes 0.330 s on a V100 (its Table 2), which is 50 TFLOP/s or 40 % of its 125.

The same is taken for other GPUs, and for the memory's bandwidth while an answer is generated one token at a time: the
weights are read once for each. Overheads are guesses."""
BYTES_PER_WEIGHT = 2
TERA, SECONDS_PER_HOUR = 1e12, 3600.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by its data sheet.

    Attributes:
        name: how it is called.
        peak_tflops: dense half-precision operations of its tensor cores, in TFLOP/s.
        bandwidth_terabytes: of its memory, in TB/s.
    """

    name: str
    peak_tflops: float
    bandwidth_terabytes: float


V100 = Gpu("V100", 125, 0.9)
GPUS = (V100, Gpu("A100", 312, 2.0), Gpu("H100", 989, 3.35))
"""V100 SXM2, A100 SXM 80 GB and H100 SXM, as NVIDIA's data sheets say; the paper used V100s."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """What a GPU is taken to do.

    Attributes:
        name: whose it is.
        tflops: operations of a prefill, in TFLOP/s.
        bandwidth_terabytes: weights read while generating, in TB/s.
        image_overhead_seconds: reading and preparing an image and all else that is not the model, for each question.
        video_overhead_seconds: the same for a video.
    """

    name: str
    tflops: float
    bandwidth_terabytes: float
    image_overhead_seconds: float = 0.15
    video_overhead_seconds: float = 1.0

    def seconds(self, prefill_flop: float, num_decoded: int, num_weights: float, medium: str) -> float:
        """Return the time of one question.

        Args:
            prefill_flop: operations until the first token, encoder included.
            num_decoded: tokens after the first.
            num_weights: of the language model.
            medium: "image" or "video".
        """
        overhead = self.video_overhead_seconds if medium == "video" else self.image_overhead_seconds
        decoding = num_decoded * num_weights * BYTES_PER_WEIGHT / (self.bandwidth_terabytes * TERA)
        return prefill_flop / (self.tflops * TERA) + decoding + overhead


def usual_throughput(gpu: Gpu = V100) -> Throughput:
    """Return what a GPU is taken to do: `PEAK_SHARE` of its peaks."""
    return Throughput(gpu.name, PEAK_SHARE * gpu.peak_tflops, PEAK_SHARE * gpu.bandwidth_terabytes)


def throughput_of(tflops: float) -> Throughput:
    """Return the throughput of a GPU that does so many operations, with the memory of the listed GPU nearest to it.

    Args:
        tflops: that its prefill reaches, in TFLOP/s.

    Raises:
        ValueError: it is not above 0.
    """
    if not tflops > 0:
        raise ValueError(f"gpu_tflops must be above 0, got {tflops}")
    nearest = min((usual_throughput(gpu) for gpu in GPUS), key=lambda each: abs(each.tflops - tflops))
    return Throughput(f"{tflops:g} TFLOP/s", tflops, nearest.bandwidth_terabytes)


class PromptCosts:
    """Exact operations, or twice the multiply-accumulates of Eq. 5 for decoders that the exact count does not know.

    Attributes:
        assumption: what they take for granted; None for nothing.
    """

    def __init__(self, subject: Subject, setting: Setting, prompt: Workload) -> None:
        """Prepare.

        Args:
            subject: the model.
            setting: method and budget; the unpruned model's cache is counted where only a recipe tells more.
            prompt: text and visual tokens.

        Raises:
            ValueError: there is no such method, or it does not fit the model.
        """
        self._shape, self._prompt, self._known_ratio = subject.shape, prompt, setting.flop_ratio
        self._is_exact = subject.shape.language.model_type in GATED_DECODERS
        self.assumption: str | None = None
        is_whole = setting.method == UNPRUNED or setting.flop_ratio is not None
        self._method: Method = RandomTokens() if is_whole else get_method(setting.method)
        self._share, self._count = (1.0, None) if is_whole else (setting.keep_ratio, setting.num_keep)
        self._scope, self._newlines = setting.scope, setting.newlines
        if self._method.finds_count and self._method.takes_budget and self._share is None and self._count is None:
            self._share = subject.keep_ratio
            self.assumption = f"finds its own number of tokens; counted as {self._share:g} of them"

    @cached_property
    def _budget(self) -> Budget | None:
        return PruningConfig(self._method, self._share, self._count).budget

    @cached_property
    def _schedule(self) -> DropSchedule:
        budget, prompt = self._budget, self._prompt
        own = None if budget is None else Budget(num_keep=prompt.kept(budget, self._scope, self._newlines))
        return schedule_of(self._method, own, prompt.num_visual_tokens)

    def prefill_flop(self) -> float:
        """Return the operations until the first token: encoder, selection, language model."""
        accounting: Accounting = "exact" if self._is_exact else "paper"
        factor = 1.0 if self._is_exact else 2.0
        how = (self._method, self._budget, accounting, self._scope, self._newlines)
        cost = compare(self._shape, [self._prompt], *how)
        if self._known_ratio is None:
            return factor * cost.pruned_flop
        encoder = cost.encoder_flop or 0.0
        return factor * (encoder + self._known_ratio * (cost.full_flop - encoder))

    def decode_flop(self, num_new_tokens: int) -> float:
        """Return the operations of the tokens after the first."""
        if not self._is_exact:
            return 2.0 * self.num_weights() * (num_new_tokens - 1)
        return decode_flop(self._shape.language, self._prompt.num_text_tokens, self._schedule, num_new_tokens)

    def num_weights(self) -> int:
        """Return the weights that each token is multiplied with."""
        language = self._shape.language
        if self._is_exact:
            return num_weights(language)
        return language.num_layers * language.hidden_size * (4 * language.hidden_size + 3 * language.intermediate_size)


NUM_IMAGES = 1000
"""Over so many the paper's Figures 3 and 5 show the max-min distance."""
EFFICIENCY_CALLS, EFFICIENCY_TOKENS = 6, 60
"""Calls of each method when time is measured, a warm-up included, and the tokens that each generates."""
RECIPE = "FitPrune recipe"


@dataclass(frozen=True, slots=True)
class Work:
    """How often something is asked, and how long its answer is.

    Attributes:
        title: of the data set, or what is done instead.
        medium: what the model is shown.
        num_samples: questions.
        mean_answer_tokens: tokens of an answer.
        needs: what must be at hand.
        num_judge_calls: calls of a judge.
    """

    title: str
    medium: Modality
    num_samples: int
    mean_answer_tokens: int
    needs: tuple[str, ...] = ()
    num_judge_calls: int = 0


@dataclass(frozen=True, slots=True)
class CostedRun:
    """A run and what it takes.

    Attributes:
        run: the run.
        model: the model's title.
        row: label of its row.
        work: the questions.
        prefill_flop: operations until the first token of one answer: encoder, selection, language model.
        decode_flop: operations of the rest of it.
        num_weights: that each token of the answer is multiplied with.
        assumption: what the estimate takes for granted; None for nothing.
    """

    run: EvaluationRun
    model: str
    row: str
    work: Work
    prefill_flop: float
    decode_flop: float
    num_weights: float
    assumption: str | None = None

    @property
    def recipe(self) -> str | None:
        """The file that FitPrune reads; None for other methods."""
        return recipe_file(self.run.method)

    @property
    def total_flop(self) -> float:
        """Operations of all answers."""
        return self.work.num_samples * (self.prefill_flop + self.decode_flop)

    def gpu_hours(self, throughput: Throughput) -> float:
        """Return the hours on one GPU."""
        decoded = self.work.mean_answer_tokens - 1
        each = throughput.seconds(self.prefill_flop, decoded, self.num_weights, self.work.medium)
        return self.work.num_samples * each / SECONDS_PER_HOUR

    def as_row(self, throughput: Throughput) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        work = asdict(self.work) | {"needs": list(self.work.needs)}
        costs = {"prefill_flop": self.prefill_flop, "decode_flop": self.decode_flop, "total_flop": self.total_flop}
        name = {"name": self.run.name, "row": self.row, "assumption": self.assumption}
        return name | self.run.as_config() | work | costs | {"gpu_hours": self.gpu_hours(throughput)}


def plan(listed: Iterable[Entry], limit: int | None = None) -> list[CostedRun]:
    """Work out what the runs of tables take, each once.

    Args:
        listed: numbers of one or more tables.
        limit: questions of each data set, at most; None for all.
    """
    found: dict[str, CostedRun] = {}
    for entry in listed:
        if entry.run is not None and entry.run.name not in found:
            found[entry.run.name] = _planned(entry, entry.run, limit)
    return list(found.values())


def total_hours(planned: Sequence[CostedRun], throughput: Throughput) -> float:
    """Return the hours of all runs on one GPU."""
    return sum(each.gpu_hours(throughput) for each in planned)


def _planned(entry: Entry, run: EvaluationRun, limit: int | None) -> CostedRun:
    setting = entry.row.setting or Setting(UNPRUNED)
    work = _work(entry.column, entry.subject, setting, limit)
    workloads = entry.subject.workloads
    usual = workloads.get("videochatgpt", entry.subject.prompts[0])
    costs = PromptCosts(entry.subject, setting, workloads[entry.column.data_set] if entry.column.is_score else usual)
    decode, weights = costs.decode_flop(work.mean_answer_tokens), costs.num_weights()
    return CostedRun(
        run, entry.subject.title, entry.row.label, work, costs.prefill_flop(), decode, weights, costs.assumption
    )


def _work(column: Column, subject: Subject, setting: Setting, limit: int | None) -> Work:
    recipe = (RECIPE,) if setting.flop_ratio is not None else ()
    if not column.is_score:
        medium: Modality = "image" if "pope" in subject.workloads else "video"
        if column.data_set == EFFICIENCY:
            return Work("time and memory", medium, EFFICIENCY_CALLS, EFFICIENCY_TOKENS, ("GPU alone", *recipe))
        return Work("pictures", "image", min(NUM_IMAGES, limit or NUM_IMAGES), 1, ("pictures", *recipe))
    source = column.source
    count = min(source.num_samples, limit or source.num_samples)
    needs = (*sorted(source.needs), *recipe)
    judged = count if "judge" in source.needs else 0
    return Work(source.title, source.medium, count, source.mean_answer_tokens, needs, judged)
