"""One run of a comparison: a model, a task, a method and its budget; and the name that its record bears."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from divprune.config import Newlines, Positions, Scope
from divprune.methods import method_title

UNPRUNED = "unpruned"


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """What is run to get one number.

    Attributes:
        model: checkpoint directory or hub name.
        task: a task of lmms-eval, such as "divprune_paper_pope".
        method: as `get_method` reads it, "unpruned" for all visual tokens.
        keep_ratio: fraction of the visual tokens kept; None if `num_keep` is given, or the method needs no budget.
        num_keep: how many are kept of each item.
        positions: as for `prune`; None for the family's default.
        order: as for `prune`.
        scope: as for `prune`.
        newlines: as for `prune`.
    """

    model: str
    task: str
    method: str = UNPRUNED
    keep_ratio: float | None = None
    num_keep: int | None = None
    positions: Positions | None = None
    order: str = "sorted"
    scope: Scope = "item"
    newlines: Newlines = "budget"

    @property
    def budget_title(self) -> str:
        """How tables call the budget; empty if there is none."""
        if self.num_keep is not None:
            count = "1 token" if self.num_keep == 1 else f"{self.num_keep} tokens"
            return count + (f" a {self.scope}" if self.scope in ("frame", "tile") else "")
        return "" if self.keep_ratio is None else f"{self.keep_ratio:g}"

    @property
    def sharing_title(self) -> str:
        """How tables call what shares the budget, and what becomes of newline tokens; empty for the defaults."""
        return " ".join(f"{name}={value}" for name, value in self._sharing.items())

    @property
    def _sharing(self) -> dict[str, str]:
        """The scope and newlines that are not the defaults."""
        fields = type(self).__dataclass_fields__
        values = {name: getattr(self, name) for name in ("scope", "newlines")}
        return {name: value for name, value in values.items() if value != fields[name].default}

    @property
    def model_title(self) -> str:
        """The model's name without its folders."""
        return re.split(r"[/\\]", self.model.rstrip("/\\"))[-1]

    @property
    def name(self) -> str:
        """The record's name: file names of all systems can hold it."""
        options = [self.positions or "", "" if self.order == "sorted" else self.order, *self.sharing_title.split()]
        budget = self.budget_title.replace(" ", "-")
        parts = [self.model_title, self.task, method_title(self.method), budget, *options]
        return "--".join(re.sub(r"[^A-Za-z0-9.=_-]+", "_", part) for part in parts if part)

    def as_config(self) -> dict[str, Any]:
        """Return the fields, ready for a record; the model without its folders, scope and newlines if not default."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("scope", "newlines")}
        return fields | self._sharing | {"model": self.model_title, "method": method_title(self.method)}
