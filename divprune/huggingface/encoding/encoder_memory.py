"""What the vision encoder made of images, kept, so that an image is encoded once however often it is asked about.

One question is asked of many settings when they are compared: inside `remembering(EncoderMemory(...))` the encoder runs
the first time alone, also for methods that read it, whose captured inputs are kept with what it gave.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from divprune.huggingface.encoding.encoder_files import encoder_output, load_encoded, save_encoded
from divprune.methods.base import Method
from divprune.methods.vision_inputs import VISION_NEEDS, CapturedVision

_ENDING = ".safetensors"


@dataclass(frozen=True)
class Remembered:
    """One pass of the encoder: its output, and what was captured meanwhile; None if the method reads nothing."""

    output: ModelOutput
    captured: CapturedVision | None

    @property
    def num_bytes(self) -> int:
        """What it takes in memory."""
        held = [*self.output.values(), *(self.captured.pieces.values() if self.captured else ())]
        return sum(tensor.nbytes for tensor in _tensors(held))

    def on(self, device: torch.device) -> "Remembered":
        """Return it on a device."""
        output = encoder_output({name: _moved(value, device) for name, value in self.output.items()})
        if self.captured is None:
            return Remembered(output, None)
        pieces = {need: _moved(pieces, device) for need, pieces in self.captured.pieces.items()}
        return Remembered(output, CapturedVision(pieces))


@dataclass
class EncoderMemory:
    """What one model's encoder made of images and videos: the first of it, as much as there is room for.

    Attributes:
        max_bytes: what may be kept in all.
        folder: where it is kept, and found by the next run of the same model; None for the CPU's memory.
        num_bytes: what is kept.
        num_passes: how often the encoder ran inside `remembering`.
    """

    max_bytes: int
    folder: Path | None = None
    num_bytes: int = 0
    num_passes: int = 0
    _known: dict[str, Remembered] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Count what earlier runs have left in the folder."""
        if self.folder is not None:
            self.num_bytes = sum(path.stat().st_size for path in self.folder.glob(f"*{_ENDING}"))

    def recall(
        self, method: Method, arguments: Mapping[str, Any], run: Callable[[], Remembered], device: torch.device
    ) -> Remembered:
        """Return what the encoder makes of some inputs, by running it if that is not known.

        Args:
            method: what it reads of the encoder is remembered with the output.
            arguments: what the encoder is given, by name.
            run: runs it.
            device: where the result is wanted.
        """
        key = _digest(_read_by(method), arguments)
        known = self._read(key)
        if known is not None:
            return known.on(device)
        self.num_passes += 1
        found = run()
        kept = Remembered(_needed(found.output), found.captured).on(torch.device("cpu"))
        if self.num_bytes + kept.num_bytes <= self.max_bytes:
            self._keep(key, kept)
            self.num_bytes += kept.num_bytes
        return found

    def _read(self, key: str) -> Remembered | None:
        if self.folder is None:
            return self._known.get(key)
        found = load_encoded(self.folder / f"{key}{_ENDING}")
        return None if found is None else Remembered(*found)

    def _keep(self, key: str, kept: Remembered) -> None:
        if self.folder is None:
            self._known[key] = kept
        else:
            save_encoded(self.folder / f"{key}{_ENDING}", kept.output, kept.captured)


_MEMORY: ContextVar[EncoderMemory | None] = ContextVar("encoder_memory", default=None)


@contextmanager
def remembering(memory: EncoderMemory) -> Iterator[EncoderMemory]:
    """Have all pruned calls of a model inside the block keep what its encoder made of images, and use it again."""
    token = _MEMORY.set(memory)
    try:
        yield memory
    finally:
        _MEMORY.reset(token)


def current_memory() -> EncoderMemory | None:
    """Return the memory of the innermost `remembering`; None outside."""
    return _MEMORY.get()


def _read_by(method: Method) -> str:
    """Return all that decides what is captured for a method."""
    needs = sorted((method.needs | method.reads) & VISION_NEEDS)
    layers = (method.vision_layer, method.early_vision_layer, method.joins_heads, method.attending)
    return repr((needs, layers) if method.needs & VISION_NEEDS else ())


def _digest(reads: str, arguments: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(reads.encode())
    for name, value in sorted(arguments.items()):
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(repr((value.dtype, tuple(value.shape))).encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _needed(output: ModelOutput) -> ModelOutput:
    """Leave out what pruning does not read; of the last hidden state it is how many images went in."""
    kept = {name: output[name] for name in ("pooler_output", "deepstack_features") if output.get(name) is not None}
    states = output.get("last_hidden_state")
    if states is not None:
        kept["last_hidden_state"] = states.new_empty((len(states), 0))
    return encoder_output(kept)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, (list, tuple)):
        return [_moved(each, device) for each in value]
    return value.detach().to(device) if isinstance(value, Tensor) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, Tensor):
        yield value
