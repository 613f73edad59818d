"""`divprune figures`: draw what was measured, from the records alone."""

from pathlib import Path
from typing import Annotated

from divprune.cli.console import command
from divprune.cli.shared_options import Debug, Force, Json, option


def figures(
    results: Annotated[Path, option("FOLDER", "Where the records are.")] = Path("results"),
    output: Annotated[Path, option("FOLDER", "Gets the page figures.md and a folder figures with the files.")] = Path(
        "docs"
    ),
    only: Annotated[list[str] | None, option("NAME", "One figure; repeat for several. The page stays.", "all")] = None,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the figures, as PNG and SVG, from result records, and a page that shows them."""
    with command(json, debug, force) as console:
        from divprune.figures import write_figures

        gallery = write_figures(results, output, only or (), console)
        console.show(*map(str, gallery.files))
        missing = [{"figure": spec.name, "records": list(lacking)} for spec, lacking in gallery.missing]
        console.result({"files": [str(file) for file in gallery.files], "missing": missing})
