"""`divprune demo`: a page to look at what methods keep, with a model behind it or as files."""

from pathlib import Path
from typing import Annotated, Any

from divprune.cli.console import Console, command
from divprune.cli.help import MODEL, OUTPUT, PRUNING, RUNNING
from divprune.cli.shared_options import (
    Debug,
    Device,
    Dtype,
    Json,
    ModelOption,
    WeightsDtype,
    given_of,
    keep_ratios_of,
    option,
)
from divprune.errors import ArgumentError


def demo(
    model: ModelOption = None,
    methods: Annotated[
        str | None,
        option("NAMES", "A and B of the page, or all that are exported.", "divprune random", panel=PRUNING),
    ] = None,
    keep_ratios: Annotated[
        str | None,
        option("FRACTIONS", "Where the page's slider begins, or all that are exported.", "0.098", panel=PRUNING),
    ] = None,
    num_frames: Annotated[int | None, option("N", "Frames sampled from each video.", "8", min=1, panel=MODEL)] = None,
    host: Annotated[
        str | None, option("ADDRESS", "Where the page listens.", "127.0.0.1: this machine alone", panel=RUNNING)
    ] = None,
    port: Annotated[int | None, option("N", "Its TCP port.", "7860", panel=RUNNING)] = None,
    max_new_tokens: Annotated[int, option("N", "Longest answer, in tokens.", min=1, panel=RUNNING)] = 64,
    export: Annotated[
        Path | None,
        option("FOLDER", "Write a page with answers that are there already; needs no gradio.", panel=OUTPUT),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        option("TEXT", "What the export asks about every scene.", "questions with known answers", panel=OUTPUT),
    ] = None,
    device: Device = "auto",
    dtype: WeightsDtype = Dtype.auto,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Open a page that shows what two methods keep of an image, beside the answers."""
    with command(json, debug, folder="--export", keep_ratio="--keep-ratios") as console:
        given = {
            "methods": None if methods is None else tuple(methods.split()),
            "keep_ratios": None if keep_ratios is None else keep_ratios_of(keep_ratios),
        }
        shared = {"model": model, "max_new_tokens": max_new_tokens, "device": device, "dtype": dtype.value}
        of_page = {"num_frames": num_frames, "host": host, "port": port}
        if export is None:
            _serve(console, shared | of_page | given, prompt)
        else:
            _export(console, shared | given | {"prompts": prompt and tuple(prompt), "folder": export}, of_page)


def _serve(console: Console, options: dict[str, Any], prompt: list[str] | None) -> None:
    from divprune.web_demo import WebDemoOptions, serve_demo

    if prompt:
        raise ArgumentError("`prompt` is for `export`; on the page, questions are typed")
    keep_ratios = options.pop("keep_ratios")
    if keep_ratios is not None and len(keep_ratios) != 1:
        raise ArgumentError("`keep_ratios` must be one for the page, where its slider begins")
    if keep_ratios:
        options["keep_ratio"] = keep_ratios[0]
    serve_demo(WebDemoOptions(**given_of(options)), console, show_download=console.is_terminal)


def _export(console: Console, options: dict[str, Any], of_page: dict[str, Any]) -> None:
    from divprune.web_demo import ExportOptions, export_demo

    beside = [f"`{name}`" for name, value in of_page.items() if value is not None]
    if beside:
        raise ArgumentError(f"{' and '.join(beside)} must be left out with `export`, which serves nothing")
    exported = export_demo(ExportOptions(**given_of(options)), console, show_download=console.is_terminal)
    found = exported.as_json()
    console.show(f"{found['num_answers']} answers about {found['num_scenes']} scenes: {exported.folder / 'index.html'}")
    console.result(found)
