"""The file that `divprune tune` writes: how far a model may be pruned, and what shows it. Commands read it back.

It is of one model: another one refuses it, from its config before weights are read, and by its weights once they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from divprune.checkpoint_places import checkpoint_folder, hub_config
from divprune.embedded import EMBEDDED_FOLDERS, checkpoint_path
from divprune.errors import TuningError
from divprune.outputs import FileKind, safe_output, write_whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FORMAT = "divprune tuned setting, version 1"
TUNED = FileKind("tuned setting", "tuned.json", rb'\A\s*\{\s*"format": "divprune tuned setting, version 1"')


@dataclass(frozen=True)
class TunedSetting:
    """How a model is pruned, found by `divprune tune`.

    Attributes:
        method: as `get_method` reads it.
        keep_ratio: fraction of the visual tokens kept, in (0, 1].
        positions: as for `prune`; None for the family's own.
        model: what the tuned model was called.
        fingerprint: of its weights; see `divprune.huggingface.fingerprint`.
        evidence: what was measured, ready for JSON.
    """

    method: str
    keep_ratio: float
    positions: Literal["original", "compact"] | None
    model: str
    fingerprint: str
    evidence: Mapping[str, Any]

    def __str__(self) -> str:
        """Say what it stands for, in one line."""
        loss, number = self.evidence["loss"], self.evidence["num_confirming"]
        numbered = "" if self.positions is None else f", {self.positions} positions"
        return (
            f"{self.method} at keep ratio {self.keep_ratio:g}{numbered}, tuned on {self.model}: loses "
            f"{loss['value']:.1%} of what images tell it (at most {loss['high']:.1%}, {number} questions)"
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `prune` and `attach`."""
        return {"method": self.method, "keep_ratio": self.keep_ratio, "positions": self.positions}

    def save(self, path: Path) -> None:
        """Write it, whole or not at all; an earlier one is replaced, and no other file.

        Raises:
            ArgumentError: it cannot be written there.
        """
        setting = {"method": self.method, "keep_ratio": self.keep_ratio, "positions": self.positions}
        fields = {"format": _FORMAT, "setting": setting, "model": self.model, "fingerprint": self.fingerprint}
        fields |= {"evidence": self.evidence}
        write_whole(safe_output("output", path, TUNED), json.dumps(fields, indent=1, allow_nan=False) + "\n")


def read_tuned(path: str | Path) -> TunedSetting:
    """Read a file that `divprune tune` wrote.

    Raises:
        TuningError: there is no such file, or it holds something else.
    """
    try:
        fields = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TuningError(f"no such tuned setting: {path}; make one with `divprune tune`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TuningError(f"{path} must be what `divprune tune` wrote, got {error}") from None
    try:
        if fields.pop("format") != _FORMAT:
            raise KeyError("format")
        return TunedSetting(**fields.pop("setting"), **fields)
    except (AttributeError, KeyError, TypeError):
        raise TuningError(
            f"{path} must be what `divprune tune` wrote, got another file, or one of another version"
        ) from None


def load_tuned(path: str | Path, model: "PreTrainedModel") -> dict[str, Any]:
    """Return how `divprune tune` found that a model may be pruned.

    Examples:
        >>> with prune(model, **load_tuned("tuned.json", model)):
        ...     output = model.generate(**inputs)

    Args:
        path: The file that it wrote.
        model: The model that is about to be pruned.

    Returns:
        Keyword arguments of `prune` and `attach`.

    Raises:
        TuningError: There is no such file, it holds something else, or it is of another model.
    """
    from divprune.huggingface.fingerprint import fingerprint

    setting = read_tuned(path)
    _require_same(setting, path, fingerprint(model))
    return setting.arguments


def tuned_for_checkpoint(path: str | Path, model: str | None) -> TunedSetting:
    """Read a tuned setting, and refuse another checkpoint before it is loaded.

    Args:
        path: The file that `divprune tune` wrote.
        model: Checkpoint directory or hub name, None for the embedded model. One that is still to be downloaded is
            told by its config alone.

    Raises:
        TuningError: There is no such file, it holds something else, or it is of another model.
        CheckpointError: There is no such checkpoint.
    """
    from divprune.huggingface.fingerprint import checkpoint_fingerprint

    setting = read_tuned(path)
    called = model or next(iter(EMBEDDED_FOLDERS))
    if called in EMBEDDED_FOLDERS:
        folder = checkpoint_path(called)
    else:
        folder = checkpoint_folder(called) or hub_config(called).parent
    _require_same(setting, path, checkpoint_fingerprint(folder))
    return setting


def _require_same(setting: TunedSetting, path: str | Path, seen: str) -> None:
    if seen != setting.fingerprint and not setting.fingerprint.startswith(f"{seen}, weights"):
        raise TuningError(
            f"{path} is of another model ({setting.model}: {setting.fingerprint}), got {seen}; run `divprune tune` on "
            "this one"
        )
