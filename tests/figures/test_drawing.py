"""Every figure draws from real records, into small files that say what they show, the same ones every time."""

import io
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageColor

from divprune.errors import MissingDependencyError, RecordError
from divprune.figures import FIGURES, Drawing, Drawn, Sources, draw_figures
from divprune.figures.style import DARK, LIGHT, LOOKS, THEMES, WIDTH, Theme, themed
from divprune.records import Record, load_record
from tests.support.contrast import contrast

NAMES = [spec.name for spec in FIGURES]
SHOWN = {
    "answers": ["all 256 tokens", "25 of 256", "white", "bottom center"],
    "kept-on-image": ["all tokens", "divprune", "fastv‡", "visionzip*", "cdpruner†", "random"],
    "kept-on-photograph": ["all 576", "divprune: 144", "divprune: 56", "random: 56"],
    "score-flops": ["divprune", "random", "fastv‡", "vtw‡", "unpruned", "picture withheld"],
    "score-ranking": ["divprune", "random", "norm"],
    "score-time": ["divprune", "random", "fastv‡", "vtw‡", "unpruned"],
    "max-min-histogram": ["divprune, divprune-star*", "random", "fastv‡", "minmax‡", "norm"],
    "tokens-tsne": ["divprune: 25 of 256", "fastv‡: 25 of 256", "random: 25 of 256"],
    "prefill": ["unpruned", "random, 25 kept", "divprune, 25 kept", "selection"],
    "encoder-time": ["unpruned", "+ tome:r=8, 25 kept", "encoder and all else"],
    "selection-time": ["the paper's procedure", "64", "144"],
}


UNTRAINED = ("selection-time", "prefill", "encoder-time", "kept-on-photograph")


def spec_of(name: str):
    return next(spec for spec in FIGURES if spec.name == name)


def drawn(drawing: Drawing, name: str) -> Drawn:
    return next(one for one in drawing.drawn if one.spec.name == name)


@pytest.mark.parametrize("ending", [".png", "-dark.png"])
@pytest.mark.parametrize("name", NAMES)
def test_png_is_a_picture_that_is_small_and_names_its_records(
    drawing: Drawing, results: Path, name: str, ending: str
) -> None:
    content = drawn(drawing, name).files[ending]
    assert len(content) < 220_000
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        assert image.width == 1200 == WIDTH * 200
        assert image.height < 1.6 * image.width
        # The corner is empty: the ground of the theme.
        theme = DARK if "dark" in ending else LIGHT
        assert image.getpixel((image.width - 2, image.height - 2)) == ImageColor.getrgb(theme.ground)
        assert image.text["Source"] == Sources(results).stamp(spec_of(name).records)
        assert len(image.convert("L").getcolors()) > 20


@pytest.mark.parametrize("ending", [".svg", "-dark.svg"])
@pytest.mark.parametrize("name", NAMES)
def test_svg_parses_is_small_and_shows_the_methods(drawing: Drawing, name: str, ending: str) -> None:
    content = drawn(drawing, name).files[ending]
    assert len(content) < 400_000
    assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
    # matplotlib draws text as paths, with the text in a comment before them.
    text = content.decode()
    for words in SHOWN[name]:
        assert f"<!-- {words} -->" in text, words


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNTRAINED])
def test_what_was_measured_on_toy_scenes_says_so(drawing: Drawing, name: str) -> None:
    text, caption = drawn(drawing, name).files[".svg"].decode(), drawn(drawing, name).caption
    footer = " ".join(line.strip().lower() for line in re.findall(r"<!-- (.*?) -->", text, flags=re.S))
    assert "toy scene" in footer
    assert "not the paper's" in footer
    assert "toy scene" in caption


def test_the_same_records_give_the_same_bytes(drawing: Drawing, results: Path) -> None:
    again = draw_figures(Sources(results))
    assert [one.files for one in again.drawn] == [one.files for one in drawing.drawn]
    assert b"<dc:date>" not in drawing.drawn[0].files[".svg"]


def test_other_records_give_another_figure(drawing: Drawing, results: Path, tmp_path: Path) -> None:
    record = load_record(results / "selection.json")
    slower = [
        row | {name: 2 * value for name, value in row.items() if name.startswith("paper_")} for row in record.rows
    ]
    Record("selection", record.config, slower, record.provenance).save(tmp_path)
    again = draw_figures(Sources(tmp_path), [spec_of("selection-time")])
    assert again.drawn[0].files[".png"] != drawn(drawing, "selection-time").files[".png"]


def test_several_bench_records_are_panels_of_one_figure(results: Path, tmp_path: Path) -> None:
    for name in ("bench-one", "bench-two"):
        record = load_record(results / "bench-embedded.json")
        Record(name, record.config | {"model": name}, record.rows, record.provenance).save(tmp_path)
    text = draw_figures(Sources(tmp_path), [spec_of("prefill")]).drawn[0].files[".svg"].decode()
    assert "<!-- bench-one, " in text
    assert "<!-- bench-two, " in text


def test_what_lacks_a_record_is_told(results: Path, tmp_path: Path) -> None:
    shutil.copy(results / "samples.json", tmp_path)
    drawing = draw_figures(Sources(tmp_path))
    missing = {spec.name: names for spec, names in drawing.missing}
    assert missing == {
        "answers": ("answers",),
        "kept-on-photograph": ("photograph",),
        "score-flops": ("eval-scenes",),
        "score-ranking": ("eval-scenes",),
        "score-time": ("eval-scenes",),
        "prefill": ("bench-*",),
        "encoder-time": ("encoder-time-*",),
        "selection-time": ("selection",),
    }
    assert {one.spec.name for one in drawing.drawn} == set(NAMES) - set(missing)


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "selection.json").write_text("{")
    with pytest.raises(RecordError, match=r"selection\.json must be JSON"):
        draw_figures(Sources(tmp_path))


def test_a_record_without_the_numbers_is_named_with_its_remedy(results: Path, tmp_path: Path) -> None:
    record = load_record(results / "selection.json")
    rows = [{name: value for name, value in row.items() if name != "paper_p80_seconds"} for row in record.rows]
    Record("selection", record.config, rows, record.provenance).save(tmp_path)
    expected = r"selection\.json lacks .* \(no 'paper_p80_seconds'\); measure again: python -m benchmarks\.selection"
    with pytest.raises(RecordError, match=expected):
        draw_figures(Sources(tmp_path))


def test_an_empty_record_is_named(results: Path, tmp_path: Path) -> None:
    record = load_record(results / "samples.json")
    Record("samples", record.config, [], record.provenance).save(tmp_path)
    with pytest.raises(RecordError, match=r"samples\.json lacks what figure kept-on-image shows"):
        draw_figures(Sources(tmp_path))


@pytest.mark.parametrize("package", ["matplotlib", "sklearn"])
def test_without_a_drawing_package_the_extra_is_named(
    results: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'divprune\[viz\]'"):
        draw_figures(Sources(results))


def test_drawing_leaves_matplotlib_as_it_was(results: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw_figures(Sources(results), [spec_of("prefill")])
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_methods_stand_out_and_words_can_be_read_in_both_themes(theme: Theme) -> None:
    with themed(theme):
        colors = {look.color for look in LOOKS.values()}
    assert len(colors) == len({look.marker for look in LOOKS.values()}) == len(LOOKS)
    assert min(contrast(color, theme.ground) for color in colors) > 2
    assert min(contrast(theme.ink, theme.ground), contrast(theme.note, theme.ground)) > 4.5
