"""What runs take: counted by hand where that is possible, and hours whose assumptions can be checked."""

import pytest

from divprune.efficiency.flops import encoder_flop
from divprune.efficiency.reference_models import get_architecture
from divprune.experiments.costs import (
    GPUS,
    PEAK_SHARE,
    V100,
    CostedRun,
    Throughput,
    plan,
    throughput_of,
    total_hours,
    usual_throughput,
)
from divprune.experiments.paper.presets import Choice, entries, get_preset
from divprune.experiments.paper.printed import TABLE2
from divprune.experiments.paper.settings import recipe_command, recipe_file, recipe_percent
from divprune.experiments.subjects import Subject, other_subject, paper_subject


def planned(subject: Subject, name: str = "table1", limit: int | None = None) -> dict[tuple[str, str], CostedRun]:
    runs = plan(entries(get_preset(name), subject), limit)
    return {(each.row, each.run.task.removeprefix("divprune_paper_")): each for each in runs}


def test_samples_flops_and_judges_of_a_cell(llava: Subject) -> None:
    found = planned(llava)
    pope = found["Original", "pope"]
    assert (pope.work.num_samples, pope.work.mean_answer_tokens, pope.work.num_judge_calls) == (9000, 2, 0)
    # 21 + 576 tokens through LLaMA-7B, and CLIP on one picture.
    assert pope.prefill_flop == pytest.approx(7.92e12 + encoder_flop(llava.shape.tower), rel=0.01)
    assert pope.decode_flop == pytest.approx(2 * 6.6e9 + 4 * 4096 * 32 * 598, rel=0.01)
    assert pope.total_flop == 9000 * (pope.prefill_flop + pope.decode_flop)
    assert found["Original", "coco2017"].work.needs == ("java",)
    video = planned(paper_subject("llava-next-video-7b"), "table2")
    assert video["DivPrune", "videochatgpt"].work.num_judge_calls == 499
    assert video["DivPrune", "activitynet"].work.num_judge_calls == 8000
    assert video["DivPrune", "efficiency"].work.needs == ("GPU alone",)


def test_a_limit_holds_for_every_data_set(llava: Subject) -> None:
    assert {each.work.num_samples for each in planned(llava, limit=7).values()} == {7}
    assert planned(llava, limit=10**6)["Original", "mmmu"].work.num_samples == 900


def test_pruning_costs_less_and_what_is_assumed_is_said(llava: Subject) -> None:
    found = planned(llava)
    whole = found["Original", "gqa"].prefill_flop
    for row in ("random", "VTW", "FastV", "DivPrune", "PruMerge", "FitPrune"):
        assert found[row, "gqa"].prefill_flop < 0.3 * whole
    assert found["PruMerge", "gqa"].assumption == "finds its own number of tokens; counted as 0.098 of them"
    assert found["DivPrune", "gqa"].assumption is None
    # FitPrune's recipe is not there yet: its target counts.
    encoder = encoder_flop(llava.shape.tower)
    assert found["FitPrune", "gqa"].prefill_flop == pytest.approx(encoder + 0.1565 * (whole - encoder))


def test_the_share_of_a_gpus_peak_is_the_papers_own_measurement() -> None:
    subject = paper_subject("llava-next-video-7b")
    run = planned(subject, "table2")["Original", "videochatgpt"]
    encoder = encoder_flop(subject.shape.tower) * get_architecture("llava-next-video-7b").encoder_passes
    reached = (run.prefill_flop - encoder) / TABLE2[0].values["prefill"]
    assert reached / 1e12 == pytest.approx(PEAK_SHARE * V100.peak_tflops, rel=0.05)


def test_hours_by_hand() -> None:
    gpu = Throughput("mine", tflops=10, bandwidth_terabytes=1, image_overhead_seconds=0.5)
    # 5 T operations at 10 T a second, 3 tokens of 100 G weights at 2 bytes, and the overhead.
    assert gpu.seconds(5e12, 3, 1e11, "image") == pytest.approx(0.5 + 0.6 + 0.5)


def test_a_faster_gpu_takes_less_time(llava: Subject) -> None:
    runs = list(planned(llava).values())
    hours = [total_hours(runs, usual_throughput(gpu)) for gpu in GPUS]
    assert hours == sorted(hours, reverse=True)
    assert total_hours(runs, throughput_of(50)) == pytest.approx(hours[0])
    assert throughput_of(300).bandwidth_terabytes == usual_throughput(GPUS[2]).bandwidth_terabytes
    with pytest.raises(ValueError, match="gpu_tflops must be above 0"):
        throughput_of(0)


def test_cells_of_several_tables_are_planned_once(llava: Subject) -> None:
    both = [*entries(get_preset("table1"), llava), *entries(get_preset("figure1"), llava)]
    names = [each.run.name for each in plan(both)]
    assert len(names) == len(set(names)) < len(both)


def test_a_decoder_that_the_exact_count_does_not_know_is_estimated(llava: Subject) -> None:
    from dataclasses import replace

    shape = replace(llava.shape, language=replace(llava.shape.language, model_type="unheard-of"))
    runs = plan(entries(get_preset("table1"), other_subject("unheard", shape, 576), Choice(data_sets=("pope",))))
    known = planned(llava)["DivPrune", "pope"]
    rough = next(each for each in runs if each.row == "DivPrune")
    assert 0.5 * known.prefill_flop < rough.prefill_flop < known.prefill_flop
    assert rough.decode_flop == pytest.approx(known.decode_flop, rel=0.1)


def test_recipes_are_named_by_what_they_cost(llava: Subject) -> None:
    recipe = planned(llava)["FitPrune", "pope"].recipe
    assert recipe == "results/fitprune-llava-1.5-7b-hf-15.65-percent.json"
    assert recipe_percent(recipe) == 15.65
    assert recipe_command("m", recipe).endswith(f"--target-percent 15.65 --output {recipe}")
    assert recipe_file("vtw:layer=2") is None
    with pytest.raises(ValueError, match="recipe must be named"):
        recipe_percent("mine.json")
