"""Keep what one visitor looks at, and what was found about it. Nothing is shared with others but the model."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from divprune.config import PruningConfig
from divprune.embedded.examples import Example
from divprune.errors import ArgumentError, PromptError, argument_errors
from divprune.huggingface.encoding.encoder_memory import EncoderMemory
from divprune.methods import get_method
from divprune.prompting import takes_videos
from divprune.web_demo.overlay_data import frames_data, overlay_data
from divprune.web_demo.shared_model import ItemPicks, ModelAnswer, SharedModel

_MEMORY_BYTES = 2**28
_MOST_KNOWN = 64  # orders of one question


@dataclass
class Session:
    """What one visitor looks at.

    Attributes:
        shared: the model.
        example: the image or video, and the question.
    """

    shared: SharedModel
    example: Example
    _memory: EncoderMemory = field(default_factory=lambda: EncoderMemory(_MEMORY_BYTES), repr=False)
    _frames: list[list[dict[str, Any]]] = field(default_factory=list, repr=False)
    _inputs: dict[str, Any] | None = field(default=None, repr=False)
    _known: dict[tuple[str, Any], list[ItemPicks]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse a video that the model would not be shown."""
        if any(medium.kind == "video" for medium in self.example.media) and not takes_videos(self.shared.loaded):
            raise PromptError(f"{self.shared.loaded.name} reads images alone; show it an image")

    def ask(self, prompt: str) -> None:
        """Change the question.

        Raises:
            ArgumentError: it is empty.
        """
        if not prompt.strip():
            raise ArgumentError("the question is empty; ask something")
        if prompt != self.example.prompt:
            self.example, self._inputs = replace(self.example, prompt=prompt, expected=None), None
            self._known.clear()

    def overlay(self, spec: str, keep_ratio: float) -> dict[str, Any]:
        """Return what is drawn of a method, see `overlay_data`.

        Args:
            spec: as `get_method` reads it.
            keep_ratio: at which the picks are made where they are not nested.

        Raises:
            DivpruneError: there is no such method, or it cannot prune these.
        """
        if not self._frames:
            self._frames = [frames_data(medium) for medium in self.example.media]
        return overlay_data(spec, self.picks(spec, keep_ratio), self._frames, is_nested=is_nested(spec))

    def picks(self, spec: str, keep_ratio: float) -> list[ItemPicks]:
        """Return what a method keeps: where its picks are nested all tokens, to be cut off; else what it is asked for.

        Raises:
            DivpruneError: there is no such method, or it cannot prune these.
        """
        config = pruning_config(spec, keep_ratio)
        if config.method.is_nested:
            config = replace(config, keep_ratio=1.0)
        key = (spec, config.keep_ratio)
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = self.shared.picks(self.example, self._all_inputs(), config, self._memory)
        return self._known[key]

    def answers(
        self, specs: Sequence[str], keep_ratio: float, *, measure: bool = True
    ) -> tuple[ModelAnswer, list[ModelAnswer]]:
        """Answer from all visual tokens, and from what each method keeps.

        Raises:
            DivpruneError: there is no such method, or it cannot prune these.
        """
        configs = [pruning_config(spec, keep_ratio) for spec in specs]
        return self.shared.answers(self._all_inputs(), configs, measure=measure)

    def _all_inputs(self) -> dict[str, Any]:
        if self._inputs is None:
            self._inputs = self.shared.inputs(self.example)
        return self._inputs


def pruning_config(spec: str, keep_ratio: float) -> PruningConfig:
    """Return how a method of the demo prunes.

    Raises:
        DivpruneError: there is no such method, a parameter is wrong, or the method takes no keep ratio.
    """
    with argument_errors():
        return PruningConfig.parse(spec, keep_ratio=keep_ratio)


def is_nested(spec: str) -> bool:
    """Tell whether the picks of a method for fewer tokens are the first of those for more; False for none."""
    try:
        return get_method(spec).is_nested
    except ValueError:
        return False
