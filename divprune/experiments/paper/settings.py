"""With which settings each method stands in a table: the paper's on its models, matched to other models' sizes.

The paper does not state the settings of its baselines; these are those whose cost by Eq. 5 is the printed ratio.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from divprune.config import Newlines, PruningConfig, Scope
from divprune.efficiency.flops import compare
from divprune.evaluation.matching import Matching, num_keep_at_equal_flops
from divprune.experiments.paper.printed import LLAVA_7B, LLAVA_13B, LLAVA_16, LLAVA_VIDEO
from divprune.experiments.subjects import Subject
from divprune.huggingface.families.registry import family_named
from divprune.huggingface.fitting import require_parts
from divprune.methods import DivPrune, get_method

VTW_LAYERS: Mapping[str, int] = {LLAVA_7B: 4, LLAVA_13B: 4, LLAVA_16: 3, LLAVA_VIDEO: 4}
FASTV_SETTINGS: Mapping[str, tuple[int, int]] = {
    LLAVA_7B: (3, 1),
    LLAVA_13B: (3, 13),
    LLAVA_16: (3, 2),
    LLAVA_VIDEO: (1, 81),
}
"""Layer and number of tokens: 15.69, 15.73, 11.30 and 14.20 % of the unpruned cost, as printed."""
LAYER_TOKENS: Mapping[int, int] = {0: 56, 1: 39, 2: 21, 3: 2}
"""Table 3: the tokens that DivPrune keeps at each layer of LLaVA-1.5-7B, all at the cost of 56 at layer 0."""
FITPRUNE_PERCENT = 15.65
FASTV_DEPTH, USUAL_DEPTH = 3, 32
"""The usual layer of FastV in Table 1, in models of so many layers."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A method with its budget.

    Attributes:
        method: as `get_method` reads it; "unpruned" for all visual tokens.
        keep_ratio: fraction kept; None if `num_keep` is given, or the method needs no budget.
        num_keep: how many are kept of each item.
        refusal: why the model cannot run it; None if nothing is known against it.
        flop_ratio: what it costs, pruned / unpruned, where only the file of its recipe tells more; else None.
        scope: what shares the budget, as for `prune`.
        newlines: what becomes of newline tokens, as for `prune`.
    """

    method: str
    keep_ratio: float | None = None
    num_keep: int | None = None
    refusal: str | None = None
    flop_ratio: float | None = None
    scope: Scope = "item"
    newlines: Newlines = "budget"

    @property
    def shares_its_own_way(self) -> bool:
        """Whether it says itself what shares the budget, or what becomes of newline tokens."""
        return (self.scope, self.newlines) != ("item", "budget")


def is_papers(subject: Subject, keep_ratio: float) -> bool:
    """Tell whether the paper has a setting of its own for this model: it compares at one keep ratio only."""
    return subject.architecture is not None and keep_ratio == subject.keep_ratio


def flop_ratio(subject: Subject, setting: Setting) -> float:
    """Return the cost of a setting, pruned / unpruned (Eq. 5), on average over the data sets that it takes.

    Args:
        subject: the model.
        setting: one whose number of kept tokens is known.

    Raises:
        ValueError: the model has no such layer, or the number is not known.
    """
    config = PruningConfig.parse(setting.method, keep_ratio=setting.keep_ratio, num_keep=setting.num_keep)
    return compare(subject.shape, subject.prompts, config.method, config.budget, "paper").ratio


def target_ratio(subject: Subject, keep_ratio: float) -> float:
    """Return what a prefill costs, pruned / unpruned, if tokens go before the LLM."""
    return flop_ratio(subject, Setting("random", keep_ratio))


def vtw_setting(subject: Subject, keep_ratio: float) -> Setting:
    """Return VTW with the layer whose cost is nearest to the target."""
    if subject.architecture is not None and is_papers(subject, keep_ratio):
        return Setting(f"vtw:layer={VTW_LAYERS[subject.architecture]}")
    target = target_ratio(subject, keep_ratio)
    layers = range(1, subject.shape.language.num_layers)
    costs = {layer: flop_ratio(subject, Setting(f"vtw:layer={layer}")) for layer in layers}
    return Setting(f"vtw:layer={min(costs, key=lambda layer: abs(costs[layer] - target))}")


def fastv_layer(subject: Subject) -> int:
    """Return FastV's layer: the paper's, or the same fraction of the layers."""
    if subject.architecture is not None:
        return FASTV_SETTINGS[subject.architecture][0]
    return max(1, round(FASTV_DEPTH * subject.shape.language.num_layers / USUAL_DEPTH))


def fastv(subject: Subject, keep_ratio: float, matching: Matching) -> Setting:
    """Return FastV at equal tokens or at equal FLOPs."""
    method = f"fastv:layer={fastv_layer(subject)}"
    if matching == "tokens":
        return Setting(method, keep_ratio)
    if subject.architecture is not None and is_papers(subject, keep_ratio):
        return Setting(method, num_keep=FASTV_SETTINGS[subject.architecture][1])
    return at_equal_flops(subject, method, keep_ratio)


def divprune_at_layer(subject: Subject, layer: int, keep_ratio: float, matching: Matching) -> Setting:
    """Return DivPrune at the entrance of a decoder layer, at equal tokens or at equal FLOPs."""
    method = f"divprune:layer={layer}" if layer else "divprune"
    num_layers = subject.shape.language.num_layers
    if layer >= num_layers:
        return Setting(method, refusal=f"the model has {num_layers} decoder layers")
    if matching == "tokens" or layer == 0:
        return Setting(method, keep_ratio)
    if subject.architecture == LLAVA_7B and is_papers(subject, keep_ratio):
        return Setting(method, num_keep=LAYER_TOKENS[layer])
    return at_equal_flops(subject, method, keep_ratio)


def at_equal_flops(subject: Subject, method: str, keep_ratio: float) -> Setting:
    """Return a method with as many tokens as cost what this keep ratio costs before the LLM."""
    try:
        count = num_keep_at_equal_flops(keep_ratio, subject.shape, subject.prompts, get_method(method))
    except ValueError as error:
        return Setting(method, refusal=str(error))
    return Setting(method, num_keep=count)


def unknown_parts(subject: Subject, scope: Scope, newlines: Newlines) -> str | None:
    """Say why a model's tokens cannot share a budget so; None if they can, or only the model's name is known."""
    if subject.model_type is None:
        return None
    try:
        require_parts(family_named(subject.model_type), PruningConfig(DivPrune(), scope=scope, newlines=newlines))
    except ValueError as error:
        return str(error)
    return None


def fitprune_setting(subject: Subject, keep_ratio: float, folder: str) -> Setting:
    """Return FitPrune with the recipe, in a folder, that is calibrated to the target."""
    percent = 100 * target_ratio(subject, keep_ratio)
    if subject.architecture == LLAVA_7B and is_papers(subject, keep_ratio):
        percent = FITPRUNE_PERCENT
    name = f"fitprune-{subject.model.rstrip('/').rpartition('/')[2]}-{percent:.2f}-percent.json"
    return Setting(f"fitprune:recipe={folder}/{name}", flop_ratio=percent / 100)


def recipe_file(method: str) -> str | None:
    """Return the file that a FitPrune spec reads its recipe from; None for other methods."""
    name, _, file = method.partition(":recipe=")
    return file if name == "fitprune" and file else None


def recipe_percent(file: str) -> float:
    """Return what a prefill with a recipe of this file name costs, in percent of the unpruned one.

    Raises:
        ValueError: the name does not tell.
    """
    parts = file.removesuffix(".json").rsplit("-", 2)
    try:
        return float(parts[-2])
    except (ValueError, IndexError):
        raise ValueError(f"recipe must be named NAME-PERCENT-percent.json, got {file!r}") from None


def recipe_command(model: str, file: str) -> str:
    """Return the command that makes a recipe; for real models it wants images such as the data sets'."""
    target = f"--target-percent {recipe_percent(file):.2f}"
    return f"divprune calibrate fitprune --model {model} --image FOLDER {target} --output {file}"
