"""A pruned Hugging Face model as lmms-eval asks it: what the chat and the simple class share."""

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.utils import Collator
from tqdm import tqdm

from divprune.checkpoints import choose_device, load_model
from divprune.config import PruningConfig
from divprune.errors import DivpruneError, EvaluationError, PromptError, PruningError
from divprune.evaluation.likelihoods import judge_answer
from divprune.huggingface import Pruning, attach
from divprune.lmms_eval_plugin.models.arguments import PruningArguments, split_arguments
from divprune.lmms_eval_plugin.models.conversations import Videos
from divprune.lmms_eval_plugin.models.generation_settings import cut_at, generate_options
from divprune.lmms_eval_plugin.models.measurement import CallMeasurement, measurement, summary
from divprune.methods import RandomTokens
from divprune.prompting import Conversation, build_batch, decode_answers, takes_videos

PATIENCE = timedelta(weeks=52)
"""How long processes wait for one another: the first one fetches the data sets, and scores."""


class HarnessModel(lmms):
    """Answers lmms-eval's requests from the kept visual tokens.

    Batches of any size, several images a prompt, videos, text alone. Under torchrun or accelerate every process has
    the whole model on a device of its own and answers its share.
    """

    def __init__(self, **given: Any) -> None:
        """Load and prune a model.

        Args:
            given: fields of `ModelArguments` and `PruningArguments`; `max_batch_size` is not used.

        Raises:
            EvaluationError: an argument is unknown or does not fit.
            CheckpointError: the checkpoint cannot be loaded.
            UnsupportedModelError: the family cannot be pruned.
        """
        super().__init__()
        given.pop("max_batch_size", None)
        self.arguments, pruning = split_arguments(given)
        self.batch_size = self.arguments.prompts_per_batch
        on_cpu = choose_device(self.arguments.device).type == "cpu"
        self.accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self._system_prompt = self._resolve_system_prompt(self.arguments.system_prompt)
        self.loaded = load_model(
            self.arguments.pretrained, self._choose_device(), self.arguments.dtype, revision=self.arguments.revision
        )
        self.videos = Videos(self.arguments.num_frames, as_images=not takes_videos(self.loaded))
        self._handle: Pruning | None = None
        self._config: PruningConfig | None = None
        self.shows_progress = self.rank == 0
        self._measured: list[CallMeasurement] = []
        self._prune(pruning.for_model(self.loaded.model))

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.loaded.model.device

    def set_pruning(
        self,
        method: str,
        *,
        keep_ratio: float | None = None,
        num_keep: int | None = None,
        positions: str | None = None,
        order: str = "sorted",
        scope: str = "item",
        newlines: str = "budget",
    ) -> None:
        """Prune the loaded model in another way, and begin its peak of memory anew; else as for a new one."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._prune(PruningArguments(method, keep_ratio, num_keep, None, positions, order, scope, newlines))

    def take_measurements(self) -> list[CallMeasurement]:
        """Return what calls since the last time took, and forget it."""
        taken, self._measured = self._measured, []
        return taken

    def clean(self) -> None:
        """Keep the model, which other tasks need; lmms-eval would throw it away."""
        self.accelerator.free_memory()

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[Any]:
        """Refuse: a task's own rounds are not supported."""
        raise NotImplementedError(
            "tasks of several rounds are not supported; serve the model (`divprune serve`) and use lmms-eval's "
            "`openai` model"
        )

    def conversation_of(self, request: Instance) -> Conversation:
        """Return what a request asks."""
        raise NotImplementedError

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answer requests, batch by batch, in their order.

        Raises:
            EvaluationError: a document cannot be asked; the message names it.
        """
        started = len(self._measured)
        # Requests of one batch share their settings; long ones come first, so that memory runs short early or never.
        order = Collator(
            [(place, _settings(request), len(str(request.args[0]))) for place, request in enumerate(requests)],
            lambda entry: (-entry[2], entry[0]),
            group_fn=lambda entry: entry[1],
            grouping=True,
        )
        said = []
        with tqdm(total=len(requests), disable=not self.shows_progress, desc="answering", unit="prompt") as bar:
            for chunk in order.get_batched(n=self.batch_size, batch_fn=None):
                batch = [requests[place] for place, *_ in chunk]
                said += self._answer(batch)
                bar.update(len(batch))
        if len(said) != len(requests):
            raise RuntimeError(f"{len(requests)} requests got {len(said)} answers")
        self._log(self._measured[started:])
        answers: list[GenerationResult] = order.get_original(said)
        return answers

    def named(self, request: Instance, step: Callable[[Instance], Any]) -> Any:
        """Take a step for one request; errors name the document."""
        try:
            return step(request)
        except DivpruneError as error:
            raise EvaluationError(f"document {request.doc_id} of {request.task_name}: {error}") from error

    def draw_for(self, request: Instance) -> None:
        """Have a method that draws tokens draw by the document: anew for each, the same in any batch and process."""
        if (config := self._drawing) is not None:
            document = zlib.crc32(f"{request.task_name} {request.doc_id}".encode())
            self._attach(config.for_sample(document))

    @torch.inference_mode()
    def judge(self, request: Instance, conversation: Conversation, answer: str) -> float:
        """Tell how likely the model finds an answer to a request: mean log-likelihood per token, in nats.

        Args:
            request: by which a method that draws tokens draws.
            conversation: what is asked; `conversation_of(request)`, perhaps without its images.
            answer: words, at least one.
        """
        self.draw_for(request)
        tokenizer: Any = self.loaded.processor.tokenizer
        ids = tokenizer(answer, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        return judge_answer(self.loaded.model, build_batch(self.loaded, [conversation]), ids).log_likelihood

    def _answer(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answer a batch; in halves where memory is short, one by one where tokens are drawn or media differ."""
        if self._drawing is not None and len(requests) > 1:
            return [answer for request in requests for answer in self._answer([request])]
        self.draw_for(requests[0])
        conversations = [self.named(each, self.conversation_of) for each in requests]
        try:
            return self._generated(conversations, _settings(requests[0]))
        except torch.OutOfMemoryError:
            if len(requests) == 1:
                raise
            size = max(1, len(requests) // 2)
            self.batch_size = min(size, self.batch_size)
        except (PromptError, PruningError, ValueError) as error:
            if len(requests) == 1:
                raise EvaluationError(f"document {requests[0].doc_id} of {requests[0].task_name}: {error}") from error
            size = 1
        # Here the failed call is forgotten, and with it what it holds of the memory.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        parts = [requests[start : start + size] for start in range(0, len(requests), size)]
        return [answer for part in parts for answer in self._answer(part)]

    @torch.inference_mode()
    def _generated(self, conversations: Sequence[Conversation], settings: dict[str, Any]) -> list[GenerationResult]:
        inputs = build_batch(self.loaded, conversations)
        generate: Callable[..., torch.Tensor] = self.loaded.model.generate  # type: ignore[assignment]
        start = time.perf_counter()
        sequences = generate(**inputs, **generate_options(settings, self.arguments.max_new_tokens))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - start
        report = self._handle.last if self._handle else None
        seen = inputs["attention_mask"] if report is None else report.keep_mask
        new_tokens = list(_lengths(sequences[:, inputs["input_ids"].shape[1] :], self.loaded.model))
        self._measured.append(measurement(len(conversations), sum(new_tokens), seconds, report, self.device))
        texts = decode_answers(self.loaded, inputs, sequences)
        return [
            GenerationResult(cut_at(text, settings), TokenCounts(input_tokens=length, output_tokens=new))
            for text, length, new in zip(texts, seen.sum(dim=1).tolist(), new_tokens, strict=True)
        ]

    def _log(self, measured: Sequence[CallMeasurement]) -> None:
        """Tell lmms-eval's own report."""
        if not measured:
            return
        total = summary(measured)
        seconds, tokens = total.pop("generation_seconds"), total.pop("num_new_tokens")
        others = {name: value for name, value in total.items() if value is not None}
        log_metrics(seconds, tokens, tokens / max(seconds, 1e-9), others)

    def _prune(self, pruning: PruningArguments) -> None:
        try:
            config = pruning.config()
            self._attach(config)
        except DivpruneError:
            raise
        except (ValueError, TypeError) as error:
            raise EvaluationError(str(error)) from None
        self._config = config

    @property
    def _drawing(self) -> PruningConfig | None:
        """The config, if its method draws tokens."""
        return self._config if self._config is not None and isinstance(self._config.method, RandomTokens) else None

    def _attach(self, config: PruningConfig | None) -> None:
        if self._handle is not None:
            self._handle.detach()
        self._handle = attach(self.loaded.model, config) if config else None

    def _choose_device(self) -> torch.device:
        if self._world_size > 1 and self.arguments.device == "auto":
            device: torch.device = self.accelerator.device
            return device
        return choose_device(self.arguments.device)


def _settings(request: Instance) -> dict[str, Any]:
    return next((part for part in request.args if isinstance(part, dict)), {})


def _lengths(new_tokens: torch.Tensor, model: Any) -> Iterator[int]:
    """Tokens of each answer, its end included, the padding behind it not."""
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    for row in new_tokens.tolist():
        yield next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
