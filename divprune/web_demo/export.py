"""The demo as plain files: scenes, methods and keep ratios with answers that are there already; no Python, no server.

```
FOLDER/index.html        the page, which works from file://
FOLDER/data.json         the same numbers for programs
FOLDER/images/*.png      the scenes
```
"""

import base64
import json
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import divprune
from divprune.demo.overlays import data_uri
from divprune.embedded.examples import Example, bundled_scenes
from divprune.errors import ArgumentError, argument_errors
from divprune.outputs import FileKind, short, write_folder
from divprune.progress import SILENT, Progress
from divprune.web_demo.options import ExportOptions
from divprune.web_demo.overlay_data import boxes_data, frame_data
from divprune.web_demo.session import Session, pruning_config
from divprune.web_demo.shared_model import ModelAnswer, SharedModel

PAGE, DATA, IMAGES = "index.html", "data.json", "images"
EXPORT = FileKind(
    "export of `divprune demo`", PAGE, rb"\A\s*<!doctype html>.*<title>divprune: what the model still sees</title>"
)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        data: what data.json holds.
    """

    folder: Path
    data: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return what `divprune demo --export --json` prints."""
        questions = [question for scene in self.data["scenes"] for question in scene["questions"]]
        return {
            "folder": str(self.folder),
            "model": self.data["model"],
            "methods": [method["name"] for method in self.data["methods"]],
            "keep_ratios": self.data["keep_ratios"],
            "num_scenes": len(self.data["scenes"]),
            "num_answers": sum(1 + len(question["runs"]) for question in questions),
        }


def export_demo(options: ExportOptions, progress: Progress = SILENT, *, show_download: bool = False) -> Exported:
    """Answer every question about the bundled scenes at every setting, and write the folder, whole or not at all.

    Args:
        options: what is shown.
        progress: is told how far it is.
        show_download: whether the hub may draw its progress bars.

    Raises:
        ArgumentError: an argument cannot work, or the folder holds something else.
        DivpruneError: the model cannot be loaded, or a method cannot prune it.
    """
    options.check()
    require_replaceable(options.folder)
    with progress.working("starting"):
        from divprune.checkpoints import choose_device, load_model
        from divprune.web_demo.usable_methods import require_usable
    device = choose_device(options.device)
    with progress.working("loading the model"):
        loaded = load_model(options.model, device, options.dtype, show_download=show_download)
    with argument_errors():
        require_usable(loaded, options.methods)
    examples = bundled_scenes(options.prompts)
    data = _head(options, loaded.name)
    shared, images = SharedModel(loaded, options.max_new_tokens), {}
    with progress.counting("answering", len(examples)) as advance:
        for number, (_, group) in enumerate(groupby(examples, key=lambda example: example.media)):
            scene, image = _Scene(shared, options, number, list(group)).answered(advance)
            data["scenes"].append(scene)
            images[scene["frame"]["source"]] = image
    text = json.dumps(data, allow_nan=False, indent=1) + "\n"
    files: dict[str, str | bytes] = {PAGE: _page(data), DATA: text, **images}
    write_folder(options.folder, files, require_replaceable)
    return Exported(options.folder, data)


def require_replaceable(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier export.

    Raises:
        ArgumentError: it does, or is no folder, or cannot be made.
    """
    if not folder.absolute().parent.is_dir():
        raise ArgumentError(
            f"`folder` {short(folder)}: there is no directory {short(folder.absolute().parent)}; create it first"
        )
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ArgumentError(f"`folder` {short(folder)} is no folder; name a new one")
    held = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if held and not (held == {PAGE, DATA, IMAGES} and EXPORT.is_kind_of(folder / PAGE) and _is_ours(folder)):
        raise ArgumentError(
            f"`folder` {short(folder)} holds something else than an earlier export; name a new folder, or empty it"
        )


def _is_ours(folder: Path) -> bool:
    """Tell whether nothing lies beside the images that an export has written."""
    try:
        data = json.loads((folder / DATA).read_bytes())
        wrote = {scene["frame"]["source"] for scene in data["scenes"]}
    except (OSError, ValueError, TypeError, LookupError):
        return False
    return wrote == {f"{IMAGES}/{path.name}" for path in (folder / IMAGES).iterdir()}


def _head(options: ExportOptions, model: str) -> dict[str, Any]:
    methods = [{"name": spec, "nested": pruning_config(spec, 0.5).method.is_nested} for spec in options.methods]
    return {
        "divprune": divprune.__version__,
        "model": model,
        "max_new_tokens": options.max_new_tokens,
        "keep_ratios": list(options.keep_ratios),
        "methods": methods,
        "scenes": [],
    }


class _Scene:
    """One image, and all questions about it."""

    def __init__(self, shared: SharedModel, options: ExportOptions, number: int, examples: list[Example]) -> None:
        self._shared, self._options, self._number, self._examples = shared, options, number, examples
        self._orders: dict[tuple[int, ...], int] = {}

    def answered(self, advance: Any) -> tuple[dict[str, Any], bytes]:
        """Return what data.json holds of it, and its pixels."""
        (medium,) = self._examples[0].media
        header, _, payload = data_uri(medium.frames[0]).partition(",")
        suffix = re.search(r"image/(\w+)", header)
        source = f"{IMAGES}/{re.sub('[^a-z0-9]+', '-', medium.name.lower())}.{suffix[1] if suffix else 'png'}"
        questions = []
        for example in self._examples:
            questions.append(self._question(example))
            advance(1)
        session = Session(self._shared, self._examples[0])
        (item,) = session.picks(self._options.methods[0], self._options.keep_ratios[0])
        scene = {
            "frame": frame_data(medium, 0, source),
            "num_visual_tokens": item.num_visual_tokens,
            "boxes": boxes_data(item.boxes),
            "orders": [list(order) for order in self._orders],
            "questions": questions,
        }
        return scene, base64.b64decode(payload)

    def _question(self, example: Example) -> dict[str, Any]:
        inputs = self._shared.inputs(example)
        settings = [(spec, ratio) for spec in self._options.methods for ratio in self._options.keep_ratios]
        configs = [pruning_config(spec, ratio) for spec, ratio in settings]
        unpruned, pruned = self._shared.answers(inputs, configs, measure=False)
        runs = [self._run(spec, ratio, answer) for (spec, ratio), answer in zip(settings, pruned, strict=True)]
        whole = {"answer": unpruned.text, "kv_cache_bytes": unpruned.kv_cache_bytes}
        return {"prompt": example.prompt, "expected": example.expected, "unpruned": whole, "runs": runs}

    def _run(self, spec: str, keep_ratio: float, answer: ModelAnswer) -> dict[str, Any]:
        (order,) = answer.orders
        return {
            "method": spec,
            "keep_ratio": keep_ratio,
            "answer": answer.text,
            "num_kept": answer.num_kept,
            "kv_cache_bytes": answer.kv_cache_bytes,
            # Most questions about an image keep the same tokens.
            "order": self._orders.setdefault(order, len(self._orders)),
        }


def _page(data: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("divprune.web_demo"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # No "</script>" may stand in a script.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return environment.get_template("gallery.html.j2").render(data=text, model=data["model"])
