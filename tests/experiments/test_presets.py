"""The paper's tables as runs: settings that cost what is printed, and other models, methods and shares."""

from dataclasses import replace

import pytest

from divprune.budget import Budget
from divprune.errors import UnknownMethodError
from divprune.experiments.paper.presets import PRESETS, Choice, Entry, entries, get_preset, runs
from divprune.experiments.paper.rows import TRAINED, TableRow
from divprune.experiments.paper.settings import flop_ratio
from divprune.experiments.subjects import Subject, paper_subject


def rows_of(listed: list[Entry]) -> dict[str, TableRow]:
    return {entry.row.label: entry.row for entry in listed}


def methods_of(listed: list[Entry]) -> set[str]:
    return {run.method for run in runs(listed)}


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_settings_cost_what_the_paper_prints(name: str) -> None:
    preset, compared = get_preset(name), 0
    for architecture in preset.architectures:
        subject = paper_subject(architecture)
        for row in rows_of(entries(preset, subject)).values():
            known = row.printed is not None and row.printed.flop_percent is not None
            if not known or row.setting is None or row.method in ("unpruned", "fitprune"):
                continue
            # 10.797 % of LLaVA-1.6 is printed as 10.79.
            assert 100 * flop_ratio(subject, row.setting) == pytest.approx(row.printed.flop_percent, abs=0.008)
            compared += 1
    assert compared == {"table1": 9, "table2": 3}[name]


def test_table_1_has_every_printed_cell_and_adds_random_and_equal_tokens(llava: Subject) -> None:
    listed = entries(get_preset("table1"), llava)
    assert list(rows_of(listed)) == [
        *("Original", "random", "VTW", "FastV", "FastV at 56 tokens", "DivPrune"),
        *("PruMerge", "DivPrune*", "FitPrune", "M3", "PruMerge-LoRA"),
    ]
    assert len(listed) == 11 * 11
    assert sum(entry.printed is not None for entry in listed) == 9 * 11
    assert len(runs(listed)) == 9 * 11
    references = [entry for entry in listed if entry.refusal is not None]
    assert {(entry.row.label, entry.refusal) for entry in references} == {("M3", TRAINED), ("PruMerge-LoRA", TRAINED)}


def test_cells_are_the_settings_worked_out_from_the_ratios(llava: Subject) -> None:
    found = {(run.method, run.keep_ratio, run.num_keep) for run in runs(entries(get_preset("table1"), llava))}
    recipe = "fitprune:recipe=results/fitprune-llava-1.5-7b-hf-15.65-percent.json"
    assert found == {
        ("unpruned", None, None),
        ("random", 0.098, None),
        ("vtw:layer=4", None, None),
        ("fastv:layer=3", None, 1),
        ("fastv:layer=3", 0.098, None),
        ("divprune", 0.098, None),
        ("prumerge", None, None),
        ("divprune-star", None, None),
        (recipe, None, None),
    }
    large = {(run.method, run.num_keep) for run in runs(entries(get_preset("table1"), paper_subject("llava-1.5-13b")))}
    assert {("vtw:layer=4", None), ("fastv:layer=3", 13)} < large
    assert not any("fitprune" in method for method, _ in large)


def test_prompts_are_numbered_as_in_the_paper_where_tokens_go_before_the_llm(llava: Subject) -> None:
    for preset in PRESETS:
        found = {run.method: run.positions for run in runs(entries(preset, llava))}
        inside = {method for method in found if ":layer=" in method or "recipe=" in method}
        assert {found[method] for method in found.keys() - inside - {"unpruned"}} == {"compact"}, preset.name
        assert {found[method] for method in inside | {"unpruned"}} == {None}, preset.name
    coordinates = replace(llava, renumbers=False)
    assert {run.positions for run in runs(entries(get_preset("table1"), coordinates))} == {None}


def test_both_activitynet_columns_come_from_one_cell() -> None:
    listed = entries(get_preset("table2"), paper_subject("llava-next-video-7b"))
    ours = [entry for entry in listed if entry.row.label == "DivPrune"]
    assert [entry.column.key for entry in ours][:2] == ["activitynet_score", "activitynet"]
    assert ours[0].run == ours[1].run
    assert [entry.printed for entry in ours][-3:] == [13.51, 0.161, 3.39]
    assert {run.task for run in runs(ours)} == {
        *(f"divprune_paper_{key}" for key in ("activitynet", "seedbench_video", "videochatgpt", "nextqa", "egoschema")),
        "efficiency",
    }


def test_layers_stand_at_equal_flops_and_at_equal_tokens(llava: Subject) -> None:
    rows = rows_of(entries(get_preset("table3"), llava))
    flops = [rows[f"layer {layer}"].setting for layer in range(4)]
    assert [setting.num_keep or 56 for setting in flops] == [56, 39, 21, 2]
    tokens = [rows[f"layer {layer} at 56 tokens"].setting for layer in (1, 2, 3)]
    assert {setting.keep_ratio for setting in tokens} == {0.098}
    means = [entry.printed for entry in entries(get_preset("table3"), llava) if entry.column.key == "mean"]
    assert [mean for mean in means if mean is not None] == [62.34, 60.44, 56.99, 38.60]


def test_the_ablations_name_their_rows_as_printed(llava: Subject) -> None:
    listed = entries(get_preset("ablations"), llava)
    means = {entry.row.label: entry.printed for entry in listed if entry.column.key == "mean" and entry.printed}
    assert means == {"cosine": 62.34, "l2 distance": 62.22, "l1 distance": 61.94, "random": 56.66, "min-max": 46.53}
    assert {"divprune:metric=l1", "divprune:metric=l2", "minmax", "divprune:layer=3"} < methods_of(listed)


def test_figures_share_cells_with_the_tables(llava: Subject) -> None:
    table = {run.name for run in runs(entries(get_preset("table1"), llava))}
    figure = {run.name for run in runs(entries(get_preset("figure1"), llava))}
    assert len(figure & table) == 9 * 4
    printed = [each for each in entries(get_preset("figure1"), llava) if each.printed and each.column.key == "pope"]
    assert len(printed) == 9


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_small_model_gets_settings_of_its_own_or_a_reason(preset: object, embedded: Subject) -> None:
    listed = entries(preset, embedded)
    assert runs(listed)
    assert all(entry.printed is None for entry in listed)
    for entry in listed:
        assert (entry.run is None) == (entry.refusal is not None or entry.column.key == "mean")
        if entry.run is not None and "layer=" in entry.run.method:
            assert int(entry.run.method.rpartition("=")[2]) < 4


def test_fastv_out_of_reach_is_refused_with_the_reason(embedded: Subject) -> None:
    rows = rows_of(entries(get_preset("table1"), embedded))
    assert rows["FastV"].refusal.startswith("the FLOP target must lie between 33.50%")
    assert rows["FastV at 25 tokens"].refusal is None
    assert rows["VTW"].setting.method == "vtw:layer=1"


def test_clips_are_planned_as_the_model_takes_them(embedded: Subject, llava: Subject) -> None:
    listed = entries(get_preset("table2"), llava)
    refused = {entry.refusal for entry in listed if entry.column.key == "nextqa"}
    assert refused >= {"LLaVA-1.5-7B takes no videos"}
    assert embedded.workloads["nextqa"].num_visual_tokens == 8 * 256, "frames as pictures"
    on_pictures = entries(get_preset("table2"), embedded, Choice(data_sets=("pope",)))
    assert {run.task for run in runs(on_pictures)} == {"divprune_paper_pope", "efficiency"}


def test_methods_are_chosen_and_added(llava: Subject) -> None:
    choice = Choice(methods=("divprune", "dart:layer=2", "visionzip", "pyramiddrop"), data_sets=("pope",))
    listed = entries(get_preset("table1"), llava, choice)
    assert list(rows_of(listed)) == [
        *("Original", "random", "DivPrune", "dart:layer=2 at 56 tokens", "dart:layer=2 at equal FLOPs"),
        *("visionzip at 56 tokens", "pyramiddrop"),
    ]
    assert {run.task for run in runs(listed)} == {"divprune_paper_pope"}
    with pytest.raises(UnknownMethodError, match="visionzip"):
        entries(get_preset("table1"), llava, Choice(methods=("visionzi",)))


def test_other_shares_have_no_printed_numbers(llava: Subject) -> None:
    listed = entries(get_preset("table1"), llava, Choice(keep_ratios=(0.25, 0.098)))
    labels = rows_of(listed)
    assert {"DivPrune, 0.25", "DivPrune, 0.098", "FastV at 144 tokens, 0.25", "Original"} < set(labels)
    printed = {entry.row.label for entry in listed if entry.printed is not None}
    assert "DivPrune, 0.098" in printed
    assert "DivPrune, 0.25" not in printed
    with pytest.raises(ValueError, match=r"keep_ratio must be in \(0, 1\]"):
        entries(get_preset("table1"), llava, Choice(keep_ratios=(1.5,)))


def test_a_data_set_of_another_table_can_be_asked_for(llava: Subject) -> None:
    listed = entries(get_preset("table3"), llava, Choice(data_sets=("gqa", "pope")))
    assert [entry.column.key for entry in listed][:3] == ["pope", "gqa", "mean"]


def test_wrong_names_are_told() -> None:
    with pytest.raises(ValueError, match="did you mean 'table1'"):
        get_preset("tabel1")


def test_published_counts_of_llava_next_are_those_of_its_tiles() -> None:
    """640, 320 and 160 = 5 x 128, 64, 32; DivPrune and random take them of the whole image."""
    subject = paper_subject("llava-1.6-7b")
    listed = entries(get_preset("llava-next"), subject, Choice(data_sets=("pope",)))
    by_count: dict[int, set[tuple[str, str, str]]] = {}
    for run in runs(listed):
        if run.num_keep is not None:
            total = subject.workloads["pope"].kept(Budget(num_keep=run.num_keep), run.scope)
            by_count.setdefault(total, set()).add((run.method, run.scope, run.newlines))
    assert by_count == {
        total: {
            ("random", "item", "budget"), ("divprune", "item", "budget"), ("visionzip", "tile", "rows"),
            ("vispruner", "tile", "keep"), ("cdpruner", "tile", "budget"), ("scope", "tile", "budget"),
            ("holov", "tile", "budget"),
        }
        for total in (640, 320, 160)
    }  # fmt: skip
    assert next(entry.printed for entry in listed if entry.row.label == "Original") == 86.38


def test_another_scope_has_no_printed_numbers_beside_it() -> None:
    subject = paper_subject("llava-1.6-7b")
    listed = entries(get_preset("table1"), subject, Choice(data_sets=("pope",), scope="tile", newlines="keep"))
    pruned = [entry for entry in listed if entry.run is not None and entry.run.method != "unpruned"]
    assert {(entry.run.scope, entry.run.newlines, entry.printed) for entry in pruned} == {("tile", "keep", None)}
