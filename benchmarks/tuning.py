"""Does `divprune tune` keep its promises? It tunes on disjoint sets of scenes, and what is lost is measured on others.

`python -m benchmarks.tuning` writes results/tuning.json: questions about toy scenes, answered by the embedded model.
About an hour on one thread; an interrupted run keeps the sets that are done and goes on.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from divprune.checkpoints import EMBEDDED, load_model
from divprune.embedded import questions, scene
from divprune.evaluation.retention import loss
from divprune.experiments import Tuned, TuneOptions, tune
from divprune.experiments.tuning.asking import Asker
from divprune.experiments.tuning.search import PruningSetting
from divprune.huggingface.encoding.encoder_memory import EncoderMemory
from divprune.jsonl_log import JsonlLog
from divprune.progress import SILENT
from divprune.records import Record, provenance
from divprune.serving.questions import read_questions

NAME = "tuning"
METHODS = ("divprune", "random")


def write_questions(folder: Path, scenes: Sequence[int], per_scene: int) -> Path:
    """Write images, and some of the short questions about each."""
    lines = []
    for seed in scenes:
        shown = scene(seed, "test")
        shown.image.save(folder / f"{seed}.png")
        short = [each for each in questions(shown) if each.kind != "caption"]
        # Each scene begins with another kind, so that all are asked equally often.
        for place in range(per_scene):
            asked = short[(seed + place * 2) % len(short)]
            lines.append({"image": f"{seed}.png", "prompt": asked.prompt, "answer": asked.answer})
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def tuned_on(scenes: Sequence[int], arguments: argparse.Namespace) -> Tuned:
    """Tune as the command does, from files."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_questions(Path(folder), scenes, arguments.questions)
        output = Path(folder) / "tuned.json"
        options = TuneOptions(source, output=output, methods=METHODS, tolerance=arguments.tolerance, device="cpu")
        found = tune(options, SILENT)
    if found is None:
        raise SystemExit("run this in one process")
    return found


def promise(place: int, found: Tuned) -> dict[str, Any]:
    """What one set promises; nothing if no setting qualifies."""
    row: dict[str, Any] = {"set": place, "method": None, "keep_ratio": None, "promised_loss": None}
    evidence = found.evidence
    if found.setting is not None:
        row |= {"method": found.setting.method, "keep_ratio": found.setting.keep_ratio}
        row["promised_loss"] = evidence["loss"]["high"]
    numbers = ("num_questions", "num_confirming", "num_forwards", "num_forwards_exhaustive", "num_encoder_passes")
    return row | {name: evidence[name] for name in numbers} | {"measured_loss": (evidence["loss"] or {}).get("value")}


class Others:
    """Scenes that nothing was tuned on."""

    def __init__(self, folder: Path, scenes: Sequence[int], per_scene: int) -> None:
        source = write_questions(folder, scenes, per_scene)
        memory, log = EncoderMemory(2**32), JsonlLog(None, NAME, {})
        loaded = load_model(EMBEDDED, torch.device("cpu"), "auto")
        self.asker = Asker(loaded, read_questions(source, None), None, 64, memory, log)
        self.places = range(len(self.asker.questions))
        with tqdm(total=len(self.places), desc="other scenes") as bar:
            self.asker.ask_unpruned(self.places, bar.update)
        self._known: dict[PruningSetting, dict[str, Any]] = {}

    def realised(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What is lost there, with its interval, under the setting of a row."""
        if row["method"] is None:
            return {}
        setting = PruningSetting(row["method"], row["keep_ratio"])
        if setting not in self._known:
            with tqdm(total=len(self.places), desc=f"{setting.method} {setting.keep_ratio:g}") as bar:
                judged = np.array([each.log_likelihood for each in self.asker.ask(setting, self.places, bar.update)])
            found = asdict(loss(self.asker.known_questions(self.places), judged))
            self._known[setting] = {f"realised_{name}": value for name, value in found.items()}
        return self._known[setting]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--scenes", type=int, default=200, help="of each set")
    parser.add_argument("--questions", type=int, default=3, help="about each scene")
    parser.add_argument("--other-scenes", type=int, default=2000)
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = {name: value for name, value in vars(arguments).items() if name != "output"}
    origin = provenance()
    log = JsonlLog(arguments.output, NAME, {"config": config, "versions": origin["versions"]})
    rows = log.read(dict)
    for place in tqdm(range(len(rows), arguments.sets), desc="sets"):
        first = place * arguments.scenes
        rows.append(promise(place, tuned_on(range(first, first + arguments.scenes), arguments)))
        log.append(rows[-1])
    first = arguments.sets * arguments.scenes
    with tempfile.TemporaryDirectory() as folder:
        others = Others(Path(folder), range(first, first + arguments.other_scenes), arguments.questions)
        rows = [row | others.realised(row) for row in rows]
    path = Record(NAME, {"model": EMBEDDED, "methods": METHODS, **config}, rows, origin).save(arguments.output)
    log.delete()
    print(path)


if __name__ == "__main__":
    main()
