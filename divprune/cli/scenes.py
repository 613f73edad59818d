"""The built-in suites of `divprune eval`: their arguments, their tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from divprune.cli.console import Console
from divprune.cli.tables import number_table
from divprune.errors import ArgumentError
from divprune.fidelity import FIDELITY_LEGEND, marked

SCENE_SUITES = ("scenes", "scenes-video")
SCENE_COLUMNS = {
    "existence_f1_percent": "F1",
    "count_percent": "count",
    "color_percent": "color",
    "shape_percent": "shape",
    "position_percent": "place",
    "motion_percent": "motion",
    "order_percent": "order",
    "caption_cider": "CIDEr",
}
"""Scores of the built-in suites, and how the table calls them; each suite has some."""
SCENES_LEGEND = (
    "kept: visual tokens of {total:.0f}. cost: prefill FLOPs in percent (Eq. 5). F1: existence, as in POPE. {captions}"
    "The other columns are right answers in percent; mean: of all kinds{but_captions}."
)
RETAINED = (
    "retained: how much of what images tell the model is still there, by the likelihood of the unpruned model's own "
    "answers (0: as if blind)."
)


def check_scenes(suite: str, model: str | None, others: Mapping[str, Any]) -> None:
    """Refuse what does not apply to generated scenes and videos."""
    asked = "embedded" if suite == "scenes" else "embedded-video"
    if model not in (None, asked):
        raise ArgumentError(
            f"`suite` {suite} asks the model {asked!r}, which was trained on such scenes and knows no others, got "
            f"`model` {model}; give that another suite, such as `suite` pope"
        )
    given = ", ".join(f"`{name}`" for name, value in others.items() if value is not None)
    if given:
        raise ArgumentError(f"{given}: not for `suite` {suite}, which answers from the embedded model on the CPU")


def show_scenes(
    console: Console,
    *,
    suite: str,
    methods: tuple[str, ...] | None,
    keep_ratios: tuple[float, ...] | None,
    equal: str,
    positions: Literal["original", "compact"] | None,
    limit: int | None,
    output: Path | None,
    resume: bool,
    retention: bool,
) -> None:
    """Run a built-in suite, and show its tables; arguments as for `SceneOptions`."""
    with console.working("starting"):
        from divprune.evaluation.scenes import SceneOptions, run_scenes
    options = SceneOptions(
        suite=suite,
        methods=methods,
        keep_ratios=keep_ratios,
        matchings=tuple(each for each in SceneOptions.matchings if equal in (each, "both")),
        positions=positions,
        num_scenes=limit,
        output=output or SceneOptions.output,
        resume=resume,
        retention=retention,
    )
    scores = run_scenes(options, console)
    answered = [row for row in scores.rows if row["refusal"] is None]
    at_equal_tokens = [row for row in answered if row["matching"] != "flops"]
    # Where tokens go before the LLM, equal tokens are equal FLOPs.
    seen = {(row["method"], row["num_kept"]) for row in at_equal_tokens}
    others = [row for row in answered if (row["method"], row["num_kept"]) not in seen]
    console.show(_scenes_table(at_equal_tokens))
    if others:
        console.show("Other counts, at equal FLOPs:", _scenes_table(others))
    for (method, refusal), where in _refused(scores.rows).items():
        console.show(f"refused: {method}{where}: {refusal}")
    captions = ("CIDEr: captions, 10 at best. ", " but captions") if "caption_cider" in scores.rows[0] else ("", "")
    legend = SCENES_LEGEND.format(total=scores.rows[0]["num_kept"], captions=captions[0], but_captions=captions[1])
    if retention:
        console.show(_retention_table(answered), RETAINED)
    console.show(legend, FIDELITY_LEGEND, scores.config["notice"], f"Record: {scores.record}")
    console.result({"suite": suite, "config": scores.config, "rows": scores.rows})


def _refused(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Locate where each method was refused, by method and reason."""
    places: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["refusal"] is not None:
            place = [] if row["keep_ratio"] is None else [f"{row['keep_ratio']:g} (equal {row['matching']})"]
            places.setdefault((row["method"], row["refusal"]), []).extend(place)
    return {key: f" at {', '.join(found)}" if found else "" for key, found in places.items()}


def _scenes_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    columns = [name for name in SCENE_COLUMNS if name in rows[0]]
    header = ("kept", "cost", *(SCENE_COLUMNS[name] for name in columns), "mean, 95 %")
    return number_table(("method",), header, [_cells(row, columns) for row in rows])


def _retention_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    cells = []
    for row in rows:
        found, *ends = (row[f"retention{end}_percent"] for end in ("", "_low", "_high"))
        interval = "" if found is None else f"{ends[0]:.1f} to {ends[1]:.1f}"
        cells.append((marked(row["method"], row["fidelity"]), f"{row['num_kept']:.0f}", _number(found, 1), interval))
    return number_table(("method",), ("kept", "retained, %", "95 %"), cells)


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> Sequence[str]:
    interval = f"{_number(row['mean_low_percent'])}-{_number(row['mean_high_percent'])}"
    return (
        marked(row["method"], row["fidelity"]),
        f"{row['num_kept']:.0f}",
        _number(row["flop_percent"]),
        *(_number(row[column], 1 if column == "caption_cider" else 0) for column in columns),
        f"{_number(row['mean_percent'])} ({interval})",
    )


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"
