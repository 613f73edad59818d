"""The rows of a table on one model: each a method with its setting, beside the printed row if there is one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from divprune.config import Newlines
from divprune.evaluation.matching import Matching
from divprune.evaluation.runs import UNPRUNED
from divprune.experiments.paper.printed import PrintedRow, printed_row
from divprune.experiments.paper.settings import (
    Setting,
    at_equal_flops,
    divprune_at_layer,
    fastv,
    fitprune_setting,
    is_papers,
    unknown_parts,
    vtw_setting,
)
from divprune.experiments.subjects import Subject
from divprune.fidelity import Fidelity, marked
from divprune.methods.registry import fidelity_of

TRAINED = "needs weights that were trained for it: printed as reference only"
LAYERS = (0, 1, 2, 3)
ORIGINAL = "Original"
_PRINTED_LABELS = {("ablations", "random"): "random tokens"}


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table.

    Attributes:
        label: its name.
        setting: the method and its budget; None for a row that is shown as reference only.
        matching: "tokens" or "flops", whatever is made equal between methods; None where nothing is.
        keep_ratio: the fraction of the visual tokens that stays; None for the unpruned model and for methods
            that find their own number.
        printed: the paper's row; None if it has none like it.
    """

    label: str
    setting: Setting | None
    matching: Matching | None = None
    keep_ratio: float | None = None
    printed: PrintedRow | None = None

    @property
    def refusal(self) -> str | None:
        """Why it is not run; None if nothing is known against it."""
        return TRAINED if self.setting is None else self.setting.refusal

    @property
    def method(self) -> str | None:
        """The method's name without parameters; None for a row that is shown as reference only."""
        return None if self.setting is None else self.setting.method.partition(":")[0]

    @property
    def fidelity(self) -> Fidelity | None:
        """How near the method is to its paper; None where nothing of a paper is run."""
        return None if self.setting is None else fidelity_of(self.setting.method)

    @property
    def title(self) -> str:
        """The label, with the mark of the method's fidelity."""
        return marked(self.label, self.fidelity)


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of one table on one model.

    Attributes:
        table: whose printed rows they stand beside.
        subject: the model.
        keep_ratio: fraction of the visual tokens that methods are compared at.
        recipe_folder: where FitPrune's recipes lie.
    """

    table: str
    subject: Subject
    keep_ratio: float
    recipe_folder: str

    def baselines(self) -> Iterator[TableRow]:
        """Yield the rows that every table has: the unpruned model, and random tokens at the same budget."""
        yield self._row(ORIGINAL, Setting(UNPRUNED), paired=False)
        yield self._row("random", Setting("random", self.keep_ratio), "tokens")

    def inside(self) -> Iterator[TableRow]:
        """Yield VTW and FastV at equal FLOPs, and FastV at equal tokens; VTW keeps none, so it has no such row."""
        subject, share = self.subject, self.keep_ratio
        yield self._row("VTW", vtw_setting(subject, share), "flops")
        yield self._row("FastV", fastv(subject, share, "flops"), "flops")
        yield self._row(f"FastV at {self._tokens()}", fastv(subject, share, "tokens"), "tokens")

    def divprune(self) -> TableRow:
        """Return the method itself."""
        return self._row("DivPrune", Setting("divprune", self.keep_ratio), "tokens")

    def fitprune(self) -> TableRow:
        """Return FitPrune, calibrated to the same cost."""
        return self._row("FitPrune", fitprune_setting(self.subject, self.keep_ratio, self.recipe_folder), "flops")

    def adaptive(self) -> Iterator[TableRow]:
        """Yield the methods that find the number of each image."""
        for label, method in (("PruMerge", "prumerge"), ("DivPrune*", "divprune-star")):
            if self.belongs(label):
                yield self._row(label, Setting(method), paired=False)

    def trained(self) -> Iterator[TableRow]:
        """Yield the rows that are shown as reference only."""
        for label in ("M3", "PruMerge-LoRA"):
            if self.in_paper(label) is not None and is_papers(self.subject, self.keep_ratio):
                yield self._row(label, None)

    def layers(self) -> Iterator[TableRow]:
        """Yield DivPrune at the first layers, at equal FLOPs and at equal tokens."""
        for layer in LAYERS:
            setting = divprune_at_layer(self.subject, layer, self.keep_ratio, "flops")
            yield self._row(f"layer {layer}", setting, "flops")
        for layer in LAYERS[1:]:
            setting = divprune_at_layer(self.subject, layer, self.keep_ratio, "tokens")
            yield self._row(f"layer {layer} at {self._tokens()}", setting, "tokens")

    def distances(self) -> Iterator[TableRow]:
        """Yield DivPrune by its three distances, and the least diverse tokens."""
        yield self._row("cosine", Setting("divprune", self.keep_ratio), "tokens")
        for metric in ("l2", "l1"):
            yield self._row(f"{metric} distance", Setting(f"divprune:metric={metric}", self.keep_ratio), "tokens")
        yield self._row("min-max", Setting("minmax", self.keep_ratio), "tokens")

    def named(self, method: str) -> Iterator[TableRow]:
        """Yield any other method: at equal tokens, and at equal FLOPs too if it acts inside the LLM.

        Raises:
            UnknownMethodError: there is no such method.
            ValueError: it has no such parameter.
        """
        from divprune.methods import get_method

        if method == "fitprune":
            yield self.fitprune()
            return
        known = get_method(method)
        if known.finds_count:
            yield self._row(method, Setting(method), paired=False)
        if not known.takes_budget:
            return
        yield self._row(f"{method} at {self._tokens()}", Setting(method, self.keep_ratio), "tokens")
        if known.layers:
            equal = at_equal_flops(self.subject, method, self.keep_ratio)
            yield self._row(f"{method} at equal FLOPs", equal, "flops")

    def row(self, label: str, setting: Setting, matching: Matching | None = None) -> TableRow:
        """Return a row whose number of tokens is its own, and not the table's keep ratio."""
        return self._row(label, setting, matching, paired=False)

    def _row(
        self, label: str, setting: Setting | None, matching: Matching | None = None, paired: bool = True
    ) -> TableRow:
        share = self.keep_ratio if paired and setting is not None else None
        printed = self.in_paper(label) if not paired or is_papers(self.subject, self.keep_ratio) else None
        return TableRow(label, setting, matching, share, printed)

    def in_paper(self, label: str) -> PrintedRow | None:
        """Return the paper's row of this table on this model, at whatever keep ratio; None if there is none."""
        model = self.subject.architecture
        if model is None:
            return None
        # The unpruned model has the same scores in all tables.
        table = "table1" if label == ORIGINAL and self.table in ("table3", "ablations", "llava-next") else self.table
        return printed_row(table, model, _PRINTED_LABELS.get((table, label), label))

    def belongs(self, label: str) -> bool:
        """Tell whether a row stands in this table: on the paper's models those that it prints, on others all."""
        return self.subject.architecture is None or self.in_paper(label) is not None

    def _tokens(self) -> str:
        """Return the budget in words: a count where it is the same for all images."""
        from divprune.budget import budget

        counts = {each.num_visual_tokens for each in self.subject.prompts}
        if len(counts) > 1:
            return f"{self.keep_ratio:.3g} of the tokens"
        return f"{budget(counts.pop(), keep_ratio=self.keep_ratio)} tokens"


Recipe = Callable[[RowMaker], Iterator[TableRow]]
"""From a model to the rows of a table."""


def every_paper_method(make: RowMaker) -> Iterator[TableRow]:
    """Table 1: all methods."""
    yield from make.baselines()
    yield from make.inside()
    yield make.divprune()
    yield from make.adaptive()
    if make.belongs("FitPrune"):
        yield make.fitprune()
    yield from make.trained()


def main_methods(make: RowMaker) -> Iterator[TableRow]:
    """Table 2: DivPrune beside VTW and FastV."""
    yield from make.baselines()
    yield from make.inside()
    yield make.divprune()


def by_layer(make: RowMaker) -> Iterator[TableRow]:
    """Table 3: where tokens are dropped."""
    yield from make.baselines()
    yield from make.layers()


TOKENS_PER_TILE, NUM_TILES = (128, 64, 32), 5
"""Papers that prune each tile keep so many in each of five: 640, 320 and 160."""
TILE_METHODS: Mapping[str, Newlines] = {
    "visionzip": "rows",
    "vispruner": "keep",
    "cdpruner": "budget",
    "scope": "budget",
    "holov": "budget",
}
"""Methods that prune each tile, and what becomes of newline tokens; "budget" where the papers do not say."""


def published_tiles(make: RowMaker) -> Iterator[TableRow]:
    """LLaVA-NeXT at the counts of the papers that prune each tile, beside DivPrune and random tokens of the image."""
    yield make.row(ORIGINAL, Setting(UNPRUNED))
    for per_tile in TOKENS_PER_TILE:
        total = NUM_TILES * per_tile
        for method in ("random", "divprune"):
            yield make.row(f"{method}, {total} tokens", Setting(method, num_keep=total), "tokens")
        for method, newlines in TILE_METHODS.items():
            refusal = unknown_parts(make.subject, "tile", newlines)
            setting = Setting(method, num_keep=per_tile, refusal=refusal, scope="tile", newlines=newlines)
            yield make.row(f"{method}, {NUM_TILES} x {per_tile} tokens", setting, "tokens")


def ablated(make: RowMaker) -> Iterator[TableRow]:
    """Return the ablations: distances, random and least diverse tokens, and layers."""
    yield from make.baselines()
    yield from make.distances()
    yield from make.layers()
