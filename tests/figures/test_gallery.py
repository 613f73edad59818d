"""The gallery lists the figures that there are, and the committed one is what the records say."""

import re
import shutil
from pathlib import Path

from PIL import Image

from divprune.figures import FIGURES, Drawing, Sources, draw_figures, gallery_page
from divprune.figures.catalog import COMMANDS
from divprune.figures.gallery import FILE_ENDINGS
from tools.hero import hero

ROOT = Path(__file__).parent.parent.parent
PAGE, FOLDER, RESULTS = ROOT / "docs" / "figures.md", ROOT / "docs" / "figures", Sources(ROOT / "results")


def linked(page: str) -> set[str]:
    return set(re.findall(r"(?:\]\(|src=\"|srcset=\")figures/([^)\"]+)[)\"]", page))


def test_the_page_shows_every_figure_once_with_both_files_and_its_caption(drawing: Drawing) -> None:
    page = gallery_page(drawing)
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == [spec.title for spec in FIGURES]
    assert linked(page) == {f"{spec.name}{ending}" for spec in FIGURES for ending in FILE_ENDINGS}
    assert all(one.caption in page for one in drawing.drawn)


def test_a_partly_drawn_gallery_says_so(results: Path, tmp_path: Path) -> None:
    shutil.copy(results / "selection.json", tmp_path)
    page = gallery_page(draw_figures(Sources(tmp_path)))
    assert f"1 of {len(FIGURES)} figures" in page
    assert "`score-flops`): needs `results/eval-scenes.json`, which `divprune eval --suite scenes` writes" in page
    assert linked(page) == {f"selection-time{ending}" for ending in FILE_ENDINGS}


def test_every_record_has_a_command_that_writes_it() -> None:
    assert {pattern for spec in FIGURES for pattern in spec.records} == set(COMMANDS)


def test_the_committed_page_is_what_the_records_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == gallery_page(draw_figures(RESULTS)), "run `make figures`"


def test_the_committed_files_are_those_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert {path.name for path in FOLDER.iterdir()} == linked(page), "run `make figures`; remove what it left out"


def test_the_committed_files_are_drawn_from_the_records_there_are() -> None:
    for spec in FIGURES:
        if RESULTS.missing(spec.records):
            continue
        stamp = RESULTS.stamp(spec.records)
        for dark in ("", "-dark"):
            with Image.open(FOLDER / f"{spec.name}{dark}.png") as image:
                assert image.text["Source"] == stamp, "run `make figures`"
            assert stamp in (FOLDER / f"{spec.name}{dark}.svg").read_text(encoding="utf-8"), "run `make figures`"


def test_readme_begins_with_one_of_them_light_or_dark(tmp_path: Path) -> None:
    shown = re.search(r'src="docs/figures/([^"]+)"', hero("docs/figures"))[1]
    assert (FOLDER / shown).is_file()
    (tmp_path / "kept-on-image.png").touch()
    assert "<source" not in hero("figures", tmp_path)
    (tmp_path / "kept-on-image-dark.png").touch()
    assert 'media="(prefers-color-scheme: dark)" srcset="figures/kept-on-image-dark.png"' in hero("figures", tmp_path)
