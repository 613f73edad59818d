"""What the methods' pages draw and say is what the records hold."""

from typing import Any

import numpy as np
import pytest

from divprune.methods.registry import built_in
from divprune.records import Record
from tools import reader_tables
from tools import wins_and_losses as words
from tools.kept_drawings import ALL_TOKENS, FOLDER, drawing, drawings, is_drawn, kept_by, kept_section, modality_of

PATCH = 16
"""Pixels of a drawn patch."""


def test_the_committed_drawings_are_what_the_records_say() -> None:
    wanted = drawings()
    assert {path.name for path in FOLDER.glob("*.png")} == wanted.keys(), "run `make readme`"
    assert [name for name, image in wanted.items() if not is_drawn(FOLDER / name, image)] == [], "run `make readme`"


def test_every_method_but_those_with_a_recipe_is_drawn() -> None:
    without = {method.name for method in built_in() if kept_by(method.name, modality_of(method)) is None}
    assert without == {"fitprune"}
    assert all(f"{name}.png" in drawings() for name in ALL_TOKENS.values())


@pytest.mark.parametrize(("modality", "method"), [("image", "divprune"), ("video", "vidcom2")])
def test_a_drawing_shows_the_kept_patches_and_no_others(modality: str, method: str) -> None:
    _, kept = kept_by(method, modality)
    whole, pruned = (_patches(drawing(modality, each)) for each in (None, kept))
    same = (whole == pruned).all(axis=(1, 2, 3)).nonzero()[0].tolist()
    assert len(same) == len(kept)
    if modality == "image":  # frames of a video stand in two rows
        assert same == kept


def _patches(image: Any) -> Any:
    pixels = np.asarray(image)
    rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    return pixels.reshape(rows, PATCH, columns, PATCH, 3).swapaxes(1, 2).reshape(-1, PATCH, PATCH, 3)


def test_a_drawing_of_merged_tokens_says_so() -> None:
    sections = {method.name: kept_section(method) for method in built_in()}
    assert "merged tokens take" in sections["visionzip"]
    assert "merged tokens take" not in sections["divprune"]
    assert "25 stay (keep ratio 0.098)" in sections["divprune"]


def row(method: str, mean: float, margin: float, **scores: float) -> dict[str, Any]:
    found: dict[str, Any] = {"method": method, "keep_ratio": 0.1, "matching": "tokens", "refusal": None}
    found |= {"num_kept": 25.0, "flop_percent": 11.3, "mean_percent": mean}
    found |= {"mean_low_percent": mean - margin, "mean_high_percent": mean + margin}
    return found | {f"{name}_percent": score for name, score in scores.items()}


def test_wins_and_losses_are_told_by_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    unpruned = row("unpruned", 99, 1, count=98, color=100) | {"keep_ratio": 1.0, "matching": None}
    others = [row("random", 70, 5, count=70, color=70), row("divprune", 90, 3, count=90, color=90)]
    own = row("mine:layer=2", 86, 2, count=90, color=70)
    twice = own | {"matching": "flops"}
    record = Record("eval-scenes", {"notice": "A bench."}, [unpruned, *others, own, twice], {})
    monkeypatch.setattr(words, "suite", lambda modality: record)
    assert words.wins_and_losses("mine", ["image"]) == (
        "A bench.\n\n- **25 tokens, 11 % of the prefill's FLOPs** (`layer=2`): 86.0 % right on average; better than "
        "`random` (70.0); not told apart from `divprune` (90.0); loses most on color, 100.0 to 70.0.\n\n"
        "*Not told apart*: the 95 % intervals of the means overlap."
    )
    assert "worse than `divprune` (90.0)" in words.wins_and_losses("random", ["image"])
    assert words.wins_and_losses("absent", ["image"]).startswith("Not measured at equal tokens")


def test_a_wish_is_answered_by_the_best_record(monkeypatch: pytest.MonkeyPatch) -> None:
    unpruned = row("unpruned", 99, 1) | {"keep_ratio": 1.0, "matching": None, "num_kept": 256.0}
    scores = {"random": 70, "divprune": 90, "otprune": 95, "tops": 97, "cls-attention": 98}
    rows = [unpruned, *(row(name, mean, 1) | {"keep_ratio": 0.098} for name, mean in scores.items())]
    monkeypatch.setattr(reader_tables, "suite", lambda modality: Record("eval-scenes", {}, rows, {}))
    anywhere, encoder, *_ = reader_tables.QUESTIONS
    monkeypatch.setattr(reader_tables, "QUESTIONS", (anywhere, (*encoder[:2], 0.098, encoder[3])))
    lines = reader_tables.which_method("methods").splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == ["otprune", "cls-attention"]
    assert lines[0].endswith("| 25 of 256, 11 % of the FLOPs | 95.0 | 70.0 | 99.0 |")
