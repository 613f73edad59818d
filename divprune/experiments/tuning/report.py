"""The HTML report of a search: the setting, the curve, and the questions whose answers changed, in one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from divprune.demo.overlays import Figure, draw_media
from divprune.experiments.tuning.outcome import ChangedQuestion, Tuned
from divprune.outputs import FileKind, write_whole
from divprune.records import seconds_text

TUNE_REPORT = FileKind(
    "report of `divprune tune`",
    "tuned.html",
    rb"\A\s*<!doctype html>.*<title>divprune: tuned on [0-9]+ questions</title>",
)
_COLORS = ("first", "second", "third", "fourth")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 900, 340, 60, 880, 20, 300  # of the chart, in its own units


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """A setting in the chart, in its units."""

    x: float
    y: float
    low: float
    high: float
    title: str
    color: str
    is_chosen: bool


@dataclass(frozen=True)
class Chart:
    """Retention against the time to the first token."""

    points: Sequence[Point]
    rows: Sequence[Tick]
    columns: Sequence[Tick]
    legend: Mapping[str, str]
    limit: float
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _RIGHT
    bottom: int = _BOTTOM


@dataclass(frozen=True)
class ChangedCard:
    """A changed question and drawings of what was kept; none beyond the first ones."""

    question: ChangedQuestion
    figures: tuple[Figure, ...]


def write_tune_report(path: Path, found: Tuned) -> None:
    """Write the report, whole or not at all."""
    loaders = ChoiceLoader([PackageLoader("divprune.experiments.tuning"), PackageLoader("divprune.demo")])
    environment = Environment(
        loader=loaders, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["seconds"] = seconds_text
    chosen = next((row for row in found.rows if row["is_chosen"]), None)
    page = environment.get_template("tuned.html.j2").render(
        headline=_headline(chosen),
        sentences=found.sentences,
        evidence=found.evidence,
        chosen=chosen,
        tiles=[] if chosen is None else _tiles(chosen, found.rows[0]),
        chart=chart_of(found.rows, found.evidence["tolerance"]),
        rows=found.rows,
        kinds=found.kinds,
        changed=_cards(found),
        model=f"{found.loaded.name} ({found.loaded.model.config.model_type})",
    )
    write_whole(path, page)


def chart_of(rows: Sequence[Mapping[str, Any]], tolerance: float) -> Chart:
    """Place settings: further left is faster, further up sees more."""
    methods = list(dict.fromkeys(row["method"] for row in rows if row["keep_ratio"] is not None))
    colors = {name: _COLORS[place % len(_COLORS)] for place, name in enumerate(methods)}
    longest = max(row["ttft_seconds"] for row in rows) * 1.05

    def across(seconds: float) -> float:
        return _rounded(_LEFT + (_RIGHT - _LEFT) * seconds / longest)

    def up(retention: float) -> float:
        return _rounded(_BOTTOM - (_BOTTOM - _TOP) * min(1.05, max(0.0, retention)) / 1.05)

    points = [
        Point(
            across(row["ttft_seconds"]),
            up(row["retention"]),
            up(row["retention_low"]),
            up(row["retention_high"]),
            f"{_name(row)}: {row['retention']:.3f} in {seconds_text(row['ttft_seconds'])}",
            colors.get(row["method"], "plain"),
            row["is_chosen"],
        )
        for row in rows
    ]
    return Chart(
        points,
        [Tick(up(share / 4), f"{share / 4:g}") for share in range(5)],
        [Tick(across(longest * part / 4), seconds_text(longest * part / 4)) for part in range(1, 5)],
        {"unpruned, blind": "plain"} | colors,
        up(1 - tolerance),
    )


def _rounded(place: float) -> float:
    return round(place, 1)


def _name(row: Mapping[str, Any]) -> str:
    return str(row["method"]) if row["keep_ratio"] is None else f"{row['method']} at {row['keep_ratio']:g}"


def _headline(chosen: Mapping[str, Any] | None) -> str:
    if chosen is None:
        return "No setting keeps the promise"
    return f"{chosen['method']}, keeping {chosen['keep_ratio']:.1%} of the visual tokens"


def _tiles(chosen: Mapping[str, Any], unpruned: Mapping[str, Any]) -> list[dict[str, Any]]:
    faster = unpruned["ttft_seconds"] / chosen["ttft_seconds"]
    return [
        {
            "name": "Retained",
            "value": f"{chosen['retention']:.1%}",
            "share": max(0.0, min(1.0, chosen["retention"])),
            "note": f"of what images tell the model, at least {chosen['retention_low']:.1%}",
        },
        {
            "name": "Same answer",
            "value": f"{chosen['same_answers']:.0%}",
            "share": chosen["same_answers"],
            "note": f"of {chosen['num_questions']} questions, word for word",
        },
        {
            "name": "Visual tokens",
            "value": f"{unpruned['visual_tokens']:.0f} → {chosen['visual_tokens']:.0f}",
            "share": chosen["visual_tokens"] / unpruned["visual_tokens"],
            "note": f"key-value cache {chosen['kv_ratio']:.0%} of the unpruned prompt's",
        },
        {
            "name": "First token",
            "value": f"{faster:.2f} x",
            "share": min(1.0, 1 / faster),
            "note": f"as fast: {seconds_text(unpruned['ttft_seconds'])} → {seconds_text(chosen['ttft_seconds'])}",
        },
    ]


def _cards(found: Tuned) -> list[ChangedCard]:
    return [
        ChangedCard(
            each,
            ()
            if each.media is None or each.report is None
            else draw_media(each.media, each.report, found.loaded.processor, first_id=number),
        )
        for number, each in enumerate(found.changed)
    ]
