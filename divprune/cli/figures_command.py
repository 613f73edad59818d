"""`divprune figures`: pictures of what was measured, drawn from the records alone."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from divprune.cli.arguments import Debug, Json
from divprune.cli.failures import CommandError, one_line_errors
from divprune.cli.outputs import check_replaceable, is_figure, is_page
from divprune.cli.screen import Screen, quiet_logs

if TYPE_CHECKING:
    from divprune.figures import Drawing, FigureSpec


def figures(
    results: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the records are.")] = Path("results"),
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Gets the page figures.md and a folder figures with the files.")
    ] = Path("docs"),
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", show_default="all", help="One figure; repeat for several. The page stays."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the figures, as PNG and SVG, from result records, and a page that shows them."""
    with one_line_errors(debug), quiet_logs(debug):
        from divprune.figures import Sources, draw_figures

        screen, specs = Screen(json), _chosen(only)
        if not results.is_dir():
            raise CommandError(f"--results {results} is no directory; it is where `divprune eval` and others write")
        with screen.working("drawing"):
            drawing = draw_figures(Sources(results), specs)
        _check(drawing, results, bool(only))
        files = _write(drawing, output, with_page=not only)
        for file in files:
            screen.show(str(file))
        for spec, lacking in drawing.missing:
            screen.note(f"{spec.name} is not drawn: {_advice(lacking, results)}")
        missing = [{"figure": spec.name, "records": list(lacking)} for spec, lacking in drawing.missing]
        screen.result({"files": [str(file) for file in files], "missing": missing})


def _chosen(only: Sequence[str] | None) -> "Sequence[FigureSpec]":
    from divprune.figures import FIGURES

    by_name = {spec.name: spec for spec in FIGURES}
    for name in only or ():
        if name not in by_name:
            close = get_close_matches(name, by_name, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise CommandError(f"--only: there is no figure {name!r}, there is {', '.join(by_name)}{guess}")
    return [spec for spec in FIGURES if not only or spec.name in only]


def _check(drawing: "Drawing", results: Path, is_choice: bool) -> None:
    """Refuse to go on where a figure asked for by name, or every figure, lacks a record."""
    if drawing.missing and (is_choice or not drawing.drawn):
        spec, lacking = drawing.missing[0]
        raise CommandError(f"{spec.name} cannot be drawn: {_advice(lacking, results)}")


def _advice(lacking: Sequence[str], results: Path) -> str:
    from divprune.figures.sources import COMMANDS

    return "; ".join(f"there is no {results / name}.json, which `{COMMANDS[name]}` writes" for name in lacking)


def _write(drawing: "Drawing", output: Path, with_page: bool) -> list[Path]:
    """Write every file in one step each, the page last."""
    from divprune.figures.gallery import FOLDER, MADE_BY, gallery_page
    from divprune.records import write_whole

    contents: dict[Path, bytes] = {
        output / FOLDER / f"{one.spec.name}.{kind}": content
        for one in drawing.drawn
        for kind, content in one.files.items()
    }
    for path in contents:
        check_replaceable("--output", path, is_figure, "figure of `divprune figures`")
    if with_page:
        page = output / "figures.md"
        check_replaceable("--output", page, partial(is_page, words=MADE_BY), "page of `divprune figures`")
        contents[page] = gallery_page(drawing).encode()
    try:
        (output / FOLDER).mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            write_whole(path, content)
    except OSError as error:
        raise CommandError(f"--output {output}: cannot be written ({error.strerror})") from None
    return list(contents)
