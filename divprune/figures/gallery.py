"""Write the figures, and the page that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from divprune.errors import ArgumentError
from divprune.figures.book import Drawing, draw_figures
from divprune.figures.catalog import COMMANDS, FIGURES, FigureSpec, Sources
from divprune.figures.saving import FIGURE
from divprune.outputs import FileKind, make_folder, safe_output, write_whole
from divprune.progress import SILENT, Progress

PAGE = "figures.md"
FILE_ENDINGS = (".png", ".svg", "-dark.png", "-dark.svg")
"""Of a figure's files."""
FOLDER = "figures"
"""Where the files lie, beside the page."""
MADE_BY = "Drawn by `divprune figures`"
"""Stands on the page, and tells it from others."""
_PAGE = FileKind("page of `divprune figures`", "one in another folder", MADE_BY.encode())


@dataclass(frozen=True)
class Gallery:
    """What was written.

    Attributes:
        files: the figures, and the page last.
        missing: figures that are not drawn, with the records that they lack.
    """

    files: Sequence[Path]
    missing: Sequence[tuple[FigureSpec, Sequence[str]]]


def write_figures(results: Path, output: Path, only: Sequence[str] = (), progress: Progress = SILENT) -> Gallery:
    """Draw figures, as PNG and SVG, from result records, and a page that shows them.

    Args:
        results: the folder of the records.
        output: gets the page `figures.md` and a folder `figures` with the files.
        only: names of figures; none for all. With some the page stays as it is.
        progress: is told how far it is, and of figures that lack a record.

    Raises:
        ArgumentError: an argument cannot work, or a figure asked for by name, or every figure, lacks a record.
        MissingDependencyError: matplotlib or scikit-learn is not installed.
        RecordError: a record is broken, or does not hold what a figure shows.
    """
    specs = _chosen(only)
    if not results.is_dir():
        raise ArgumentError(f"`results` {results} is no directory; it is where `divprune eval` and others write")
    sources = Sources(results)
    able = [spec for spec in specs if not sources.missing(spec.records)]
    if not able or (only and len(able) < len(specs)):
        spec = next(spec for spec in specs if spec not in able)
        raise ArgumentError(f"{spec.name} cannot be drawn: {_advice(sources.missing(spec.records), results)}")
    for spec in able:
        # A broken record is told before anything is made.
        sources.load(spec.records)
    make_folder("output", output / FOLDER)
    for spec in able:
        for ending in FILE_ENDINGS:
            safe_output("output", output / FOLDER / f"{spec.name}{ending}", FIGURE)
    if not only:
        safe_output("output", output / PAGE, _PAGE)
    with progress.working("drawing"):
        drawing = draw_figures(sources, specs)
    files = _write(drawing, output, with_page=not only)
    for spec, lacking in drawing.missing:
        progress.note(f"{spec.name} is not drawn: {_advice(lacking, results)}")
    return Gallery(files, drawing.missing)


def _chosen(only: Sequence[str]) -> Sequence[FigureSpec]:
    by_name = {spec.name: spec for spec in FIGURES}
    for name in only:
        if name not in by_name:
            close = get_close_matches(name, by_name, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise ArgumentError(f"`only`: there is no figure {name!r}, there is {', '.join(by_name)}{guess}")
    return [spec for spec in FIGURES if not only or spec.name in only]


def _advice(lacking: Sequence[str], results: Path) -> str:
    return "; ".join(f"there is no {results / name}.json, which `{COMMANDS[name]}` writes" for name in lacking)


def _write(drawing: Drawing, output: Path, with_page: bool) -> list[Path]:
    """Write every file in one step each, the page last."""
    contents: dict[Path, bytes] = {
        output / FOLDER / f"{one.spec.name}{ending}": content
        for one in drawing.drawn
        for ending, content in one.files.items()
    }
    if with_page:
        contents[output / PAGE] = gallery_page(drawing).encode()
    try:
        for path, content in contents.items():
            write_whole(path, content)
    except OSError as error:
        raise ArgumentError(f"`output` {output}: cannot be written ({error.strerror})") from None
    return list(contents)


def gallery_page(drawing: Drawing) -> str:
    """Return the page in Markdown: every figure with its caption, then what could not be drawn and why."""
    parts = ["# Figures", _lead(drawing)]
    for one in drawing.drawn:
        name, title = one.spec.name, one.spec.title
        parts += [
            f"## {title}",
            _picture(name, title),
            f"{one.caption}",
            f"`{name}`, from {_files(one.spec.records)}; SVG: [light]({FOLDER}/{name}.svg), "
            f"[dark]({FOLDER}/{name}-dark.svg).",
        ]
    if drawing.missing:
        parts += ["## Not drawn", "These figures lack a record:"]
        parts.append("\n".join(_missing_line(spec.name, spec.title, names) for spec, names in drawing.missing))
    return "\n\n".join(parts) + "\n"


def _picture(name: str, title: str) -> str:
    """Return the figure in the reader's colours, as Markdown takes it."""
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{FOLDER}/{name}-dark.png">'
    return f'<picture>{dark}<img alt="{title}" src="{FOLDER}/{name}.png"></picture>'


def _lead(drawing: Drawing) -> str:
    total = len(drawing.drawn) + len(drawing.missing)
    lead = f"{MADE_BY} from the records under `results/`, this page included."
    if not drawing.missing:
        return lead
    return f"{lead} {len(drawing.drawn)} of {total} figures are here; the others wait for their records."


def _files(patterns: tuple[str, ...]) -> str:
    return " and ".join(f"`results/{pattern}.json`" for pattern in patterns)


def _missing_line(name: str, title: str, patterns: tuple[str, ...]) -> str:
    commands = ", ".join(f"`{COMMANDS[pattern]}`" for pattern in patterns)
    return f"- {title} (`{name}`): needs {_files(patterns)}, which {commands} writes."
