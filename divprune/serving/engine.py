"""One pruned engine that answers questions of a batch: image files -> vLLM with the plugin -> answers."""

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL.Image import Image

from divprune.config import Positions
from divprune.errors import BatchError, MediaError
from divprune.media import MAX_PIXELS_AT_ONCE, load_image
from divprune.serving.answers import Answer
from divprune.serving.interrupts import interrupts_kept_here
from divprune.serving.questions import BatchQuestion
from divprune.serving.vllm_flags import answer_flags
from divprune.serving.vllm_installed import require_vllm
from divprune.vllm_plugin.owner_watchdog import end_engines_with_owner


@dataclass(frozen=True)
class EngineSettings:
    """How an engine is started and asked.

    Attributes:
        model: checkpoint directory or hub name.
        method: which tokens are kept, as `divprune.get_method` reads it.
        keep_ratio: fraction of each image's visual tokens that is kept; None if `num_keep` is given.
        num_keep: how many are kept; None if `keep_ratio` is given.
        max_new_tokens: longest answer.
        temperature: 0 for the likeliest answer.
        flags: vLLM's own flags, as on its command line.
        positions: as for `pruned_overrides`.
    """

    model: str
    method: str
    keep_ratio: float | None
    num_keep: int | None
    max_new_tokens: int
    temperature: float
    flags: tuple[str, ...] = ()
    positions: Positions | None = None

    def __str__(self) -> str:
        """Return what answers depend on besides the question, in one line."""
        # Every digit: rounded, two settings could pass for one.
        count = f"num_keep={self.num_keep}" if self.keep_ratio is None else f"keep_ratio={float(self.keep_ratio)}"
        if self.positions is not None:
            count += f", positions={self.positions}"
        parts = [self.model, self.method, count, f"max_new_tokens={self.max_new_tokens}"]
        flags = shlex.join(answer_flags(self.flags))
        return ", ".join([*parts, f"temperature={float(self.temperature)}", *filter(None, [flags])])


class PrunedEngine:
    """vLLM's offline engine with pruning on; started once, asked often."""

    def __init__(self, settings: EngineSettings) -> None:
        """Start it.

        Raises:
            MissingDependencyError: vLLM is not installed.
            BatchError: vLLM does not know a flag.
            UnsupportedModelError: the model, or the method, cannot be served pruned.
        """
        require_vllm()
        end_engines_with_owner(os.environ)
        from vllm import LLM, SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind

        self._settings, self._refusals = settings, (ValueError, VLLMClientError)
        with interrupts_kept_here():
            self._llm = LLM.from_engine_args(_engine_arguments(settings))
        self._sampling = SamplingParams(
            max_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def answer(self, questions: Sequence[BatchQuestion]) -> list[Answer]:
        """Answer some questions together; those that cannot be asked get an error instead of an answer."""
        messages: dict[str, Any] = {}
        outputs: dict[str, Any] = {}
        errors: dict[str, str] = {}
        notes: dict[str, str] = {}
        num_pixels = 0
        for question in questions:
            try:
                media = [load_image(each) for each in question.images]
            except MediaError as error:
                errors[question.id] = str(error)
                continue
            images = [medium.frames[0] for medium in media]
            notes[question.id] = "; ".join(medium.note for medium in media if medium.note)
            messages[question.id] = _message(images, question.prompt)
            num_pixels += sum(image.width * image.height for image in images)
            if num_pixels > MAX_PIXELS_AT_ONCE:
                outputs |= self._outputs(messages, errors)
                messages, num_pixels = {}, 0
        outputs |= self._outputs(messages, errors)
        return [
            self._answer(each, outputs.get(each.id), errors.get(each.id), notes.get(each.id) or None)
            for each in questions
        ]

    def _outputs(self, messages: dict[str, Any], errors: dict[str, str]) -> dict[str, Any]:
        """Return the engine's outputs; where it refuses a prompt (too long, too many images) the error is added."""
        if not messages:
            return {}
        try:
            outputs = self._llm.chat(list(messages.values()), self._sampling, use_tqdm=False)
            return dict(zip(messages, outputs, strict=True))
        except self._refusals as error:
            if len(messages) == 1:
                errors.update(dict.fromkeys(messages, " ".join(str(error).split())))
                return {}
        # One of them spoils the rest: ask one by one.
        alone = [self._outputs({name: message}, errors) for name, message in messages.items()]
        return {name: output for part in alone for name, output in part.items()}

    def _answer(self, question: BatchQuestion, output: Any, error: str | None, note: str | None) -> Answer:
        answer = Answer(question.id, question.prompt, question.image_names, str(self._settings), error=error, note=note)
        if output is None:
            return answer
        generated = output.outputs[0]
        return replace(
            answer,
            answer=generated.text,
            finish_reason=generated.finish_reason,
            prompt_tokens=len(output.prompt_token_ids),
            answer_tokens=len(generated.token_ids),
        )


def _engine_arguments(settings: EngineSettings) -> Any:
    from vllm import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from divprune.vllm_plugin import pruned_overrides

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(exit_on_error=False))
    try:
        arguments, unknown = parser.parse_known_args(list(settings.flags))
    except (argparse.ArgumentError, SystemExit) as error:
        raise BatchError(f"vLLM does not take these flags: {error}") from None
    if unknown:
        raise BatchError(f"vLLM has no flag {unknown[0]!r}")
    arguments.model = settings.model
    overrides = pruned_overrides(
        settings.model,
        keep_ratio=settings.keep_ratio,
        num_keep=settings.num_keep,
        method=settings.method,
        positions=settings.positions,
    )
    arguments.hf_overrides = {**(arguments.hf_overrides or {}), **overrides}
    return EngineArgs.from_cli_args(arguments)


def _message(images: Sequence[Image], prompt: str) -> list[dict[str, Any]]:
    """One turn of a conversation: the images, then the prompt."""
    parts: list[dict[str, Any]] = [{"type": "image_pil", "image_pil": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}]
