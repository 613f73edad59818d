"""README and docs say what the package does: generated tables, examples that run, links that lead somewhere."""

import re
from pathlib import Path
from typing import Any

import pytest

from divprune.errors import RecordError
from divprune.huggingface.families.support import load_support
from divprune.methods.registry import built_in
from divprune.records import Record, load_record
from tools.cost_tables import bench_table, serving_table, soak_table
from tools.method_pages import FOLDER, INDEX, as_text, pages
from tools.models_page import models_page
from tools.render_results import FILES, RESULTS, TABLES, render, scenes_table, selection_table
from tools.render_support import MODELS, PAGE, page

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", FILES)
def test_tables_are_what_the_records_say(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert render(text) == text, "run `make readme`"


def test_the_support_page_is_what_the_parity_suite_found() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(load_support()), "run `make support`"
    assert MODELS.read_text(encoding="utf-8") == models_page(load_support()), "run `make support`"


def test_every_method_has_a_page_of_its_own_that_is_current() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    wanted = pages()
    assert found.keys() == wanted.keys() == {INDEX, *(f"{method.name}.md" for method in built_in())}
    assert found == wanted, "run `make readme`"


def test_a_page_says_what_the_class_says() -> None:
    page = pages()["vidcom2.md"]
    for words in (
        "# `vidcom2`\n\nVideo only: the tokens least like the mean of their frame and of the video",
        "| `temperature` | `0.01` | tau of the softmax, above 0; the paper's is 0.01. |",
        "**unverified** (\u2021 in tables and figures)",
        "| `grid` |  | (frames, height, width) of the tokens in row-major order",
        "- on videos, before the LLM; how many tokens stay: `keep_ratio` or `num_keep`, exactly.",
        "`Qwen2VLForConditionalGeneration` (videos)",
        "@inproceedings{liu2025video,",
    ):
        assert words in page, words
    assert "`LlavaForConditionalGeneration` (images)" in pages()["visionzip.md"]
    assert "reads the question (text_embeddings)" in pages()["cdpruner.md"].replace("\\", "")
    assert "acts inside the LLM" in pages()["fastv.md"]
    assert "| `attention` | at `layer` |" in pages()["flashvid.md"]


def test_docstrings_read_the_same_in_markdown() -> None:
    assert as_text("r_t = a * b_c < `x_y` | [z") == "r\\_t = a \\* b\\_c \\< `x_y` \\| \\[z"


def test_every_table_is_used() -> None:
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in FILES)
    for name in TABLES:
        assert f"<!-- table:{name} -->" in text
    for name in RESULTS:
        assert f"<!-- results:{name} -->" in text


def test_rendering_replaces_only_what_is_marked() -> None:
    text = "before\n<!-- table:fidelity -->\nold\n<!-- /table -->\nafter"
    rendered = render(text)
    assert rendered.startswith("before\n<!-- table:fidelity -->\n| method |")
    assert rendered.endswith("\n<!-- /table -->\nafter")
    assert "\nold\n" not in rendered
    assert render(rendered) == rendered


def scene_row(method: str, seed: int | None, percent: float) -> dict[str, Any]:
    columns = ("existence", "count", "color", "shape", "position", "caption", "mean")
    setting = {"method": method, "positions": "compact", "keep_ratio": 0.098, "num_kept": 25, "seed": seed}
    return setting | {f"{column}_percent": percent for column in columns}


def test_random_draws_are_averaged_in_the_scenes_table() -> None:
    rows = [scene_row("divprune", None, 80), scene_row("random", 0, 60), scene_row("random", 1, 70)]
    lines = scenes_table(Record("scenes", {}, rows, {})).splitlines()
    assert len(lines) == 4
    assert lines[3].startswith("| random | compact | 25 | 65.0 |")


def test_selection_table_shows_both_times_and_their_ratio() -> None:
    row = {"case": "compare", "num_visual_tokens": 576, "num_keep": 56, "features": "gaussian"}
    row |= {"paper_median_seconds": 0.1234, "select_median_seconds": 0.0456, "matrix_product_median_seconds": 0.04}
    provenance = {"machine": {"processor": "A Processor", "num_threads": 2}, "versions": {"torch": "2.13.0"}}
    config = {"repeats": 9, "warm_up": 2, "dtype": "float32", "device": "cpu"}
    table = selection_table(Record("selection", config, [row | {"speedup_median_ratio": 2.706}], provenance))
    assert "| 576 | 56 | gaussian | 123 ms | 45.6 ms | 40.0 ms | 2.71 x |" in table
    assert table.endswith("float32 on the cpu; A Processor, 2 threads, torch 2.13.0.")


def test_tables_say_when_the_machine_was_busy_and_nothing_of_records_from_before() -> None:
    bench = load_record(ROOT / "results" / "bench-llava-1.5-7b.json")
    busy = {"foreign_cores": [0.0, 0.5], "busy_rounds": 1}
    note = "The machine was busy in 1 of 2 rounds: others used up to 0.50 cores."
    before = {name: value for name, value in bench.config.items() if name not in ("foreign_cores", "busy_rounds")}
    assert "busy" not in bench_table(Record(bench.name, before, bench.rows, bench.provenance))
    assert note in bench_table(Record(bench.name, before | busy, bench.rows, bench.provenance))
    selection = load_record(ROOT / "results" / "selection.json")
    silent = [{name: row[name] for name in row if name not in busy} for row in selection.rows]
    rows = [silent[0] | busy, *silent[1:]]
    assert note in selection_table(Record(selection.name, selection.config, rows, selection.provenance))


def soak_rows(server: str, right: int | None, outcomes: dict[str, int], end_bytes: int) -> list[dict[str, Any]]:
    asked = {"what": "requests", "server": server, "alone_equal_reference": right, "outcomes": outcomes}
    memory = {"what": "resident memory", "server": server, "start_bytes": 2_000_000_000}
    worker = memory | {"process": "worker", "end_bytes": 1}
    return [asked, worker, memory | {"process": "all", "end_bytes": end_bytes}]


def test_soak_table_shows_every_outcome_and_how_memory_grew() -> None:
    outcomes = {"whole": 50, "streamed": 20, "refused": 10, "hung up": 5, "differs": 2, "failed with 500": 1}
    rows = soak_rows("pruned", 7, outcomes, 2_005_000_000)
    rows += soak_rows("unpruned", None, {"whole": 88}, 1_999_000_000)
    config = {"num_requests": 88, "num_warm_up_requests": 400, "concurrency": 8, "num_questions": 9}
    config |= {"model": "tiny", "keep_ratio": 0.25, "vllm": "0.32.0"}
    provenance = {"machine": {"processor": "A Processor", "num_cores": 2}}
    table = soak_table(Record("soak", config, rows, provenance))
    assert "| pruned | 70 | 10 | 5 | 3 | 2000.0 MB | 2005.0 MB | 0.25% |" in table
    assert "| unpruned | 88 | 0 | 0 | 0 | 2000.0 MB | 1999.0 MB | -0.05% |" in table
    assert "88 requests to each server, after 400 before" in table
    assert "the pruned server answered 7 of 9" in table


def serving_row(method: str, keep_ratio: float | None, traffic: str, rate: float, **others: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "keep_ratio": keep_ratio, "traffic": traffic, "concurrency": 8}
    row |= {"requests_median_per_second": rate, "ttft_p50_median_seconds": 1.5, "ttft_p99_median_seconds": 3.25}
    row |= {"prompt_tokens": 320.4, "peak_kv_usage": 0.5, "encoder_fraction": 0.25, "max_foreign_cores": 0.02}
    return row | {"selection_seconds_per_request": 0.0} | others


def serving_record(rows: list[dict[str, Any]]) -> Record:
    config = {
        "architecture": "some-7b",
        "num_layers": 2,
        "num_tower_layers": 3,
        "num_words": 32000,
        "dtype": "bfloat16",
    }
    config |= {"device": "cpu", "image_sizes": [[448, 336], [28, 28]], "video_frames": 8, "text_tokens": 64}
    config |= {"output_tokens": 32, "pool_tokens": 8192, "rounds": 2, "waves": 1, "vllm": "0.32.0"}
    config |= {"vllms_own_methods": "not measured, its runner for CPUs does not prune"}
    return Record("serving", config, rows, {"machine": {"processor": "A Processor", "num_cores": 2}})


def test_serving_table_shows_every_server_next_to_the_unpruned_one() -> None:
    rows = [
        serving_row("unpruned", None, "text", 4),
        serving_row("unpruned", None, "image", 0.5),
        serving_row("divprune", 0.098, "image", 1.25, selection_seconds_per_request=0.0123, max_foreign_cores=0.345),
    ]
    table = serving_table(serving_record(rows))
    unpruned, pruned, text = table.splitlines()[2:5]
    assert unpruned == "| image | 8 | unpruned |  | 320 | 0.50 (1.00 x) | 1.50 s | 3.25 s | 50% | 25% |  |"
    assert pruned == "| image | 8 | divprune | 0.098 | 320 | 1.25 (2.50 x) | 1.50 s | 3.25 s | 50% | 25% | 12.3 ms |"
    assert text == "| text | 8 | unpruned |  | 320 | 4.00 (1.00 x) | 1.50 s | 3.25 s | 50% |  |  |"
    assert "an image (448 x 336, 28 x 28 in turns)" in table
    assert "vLLM's own video pruning: not measured, its runner for CPUs does not prune." in table
    assert "Medians of 2 rounds in turns, 1 x as many requests as run at once in each" in table
    assert table.endswith("2 cores for server and client, of which other processes took 0.34 at most.")


def test_a_record_of_another_benchmark_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.render_results.ROOT", tmp_path)
    marks = "<!-- results:serving -->\n<!-- /results -->"
    assert "*Not measured yet.*" in render(marks)
    (tmp_path / "results").mkdir()
    Record("serving", {}, [{"variant": "unpruned", "traffic": "image"}], {}).save(tmp_path / "results")
    with pytest.raises(RecordError, match=r"serving\.json has no '\w+', so another version .*; measure again"):
        render(marks)


def test_python_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole example first: the snippet above it is of the same model and inputs."""
    snippet, whole = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict[str, Any] = {}
    for block in (whole, snippet):
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "25 of 256 tokens (9.8%)" in printed
    assert "64 of 256 tokens (25.0%)" in printed


def test_the_readme_is_read_to_its_end() -> None:
    assert len(README.splitlines()) < 130
    assert max(map(len, README.splitlines())) < 250


def test_the_first_screen_says_what_it_gains_and_under_which_conditions() -> None:
    first_screen = README.partition("## Install")[0]
    for words in (
        "**First token 4.0 x as fast**",
        "bfloat16",
        "requests a second**",
        "the *paper's* numbers, not ours",
    ):
        assert words in first_screen


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).is_file(), target


def test_changelog_and_citation_name_this_version() -> None:
    from divprune import __version__

    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
