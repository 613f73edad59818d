"""How far may a model be pruned on these questions? Ask it unpruned, search, confirm, measure, and write it down.

```
read questions -> answers of the unpruned model, and blind -> Search (search.py) on a third of them
               -> the promise on the others -> what answers changed (outcome.py) -> costs (costs.py) -> tuned.json
```
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from math import ceil, log2
from pathlib import Path
from typing import Any

from divprune.checkpoints import LoadedModel, checkpoint_config, load_model
from divprune.distributed import is_main_process, num_processes, rank
from divprune.errors import TuningError, argument_errors
from divprune.experiments.tuning.asking import Asker
from divprune.experiments.tuning.costs import Costs
from divprune.experiments.tuning.options import TuneOptions
from divprune.experiments.tuning.outcome import Tuned, tuned
from divprune.experiments.tuning.questions import questions_with_images
from divprune.experiments.tuning.report import TUNE_REPORT, write_tune_report
from divprune.experiments.tuning.search import (
    MAX_CONFIRMATIONS,
    Found,
    Measure,
    PruningSetting,
    Search,
    split,
)
from divprune.experiments.tuning.sharing import join, own_device, own_share
from divprune.huggingface.encoding.encoder_memory import EncoderMemory
from divprune.huggingface.fingerprint import fingerprint
from divprune.huggingface.fitting import require_prunable
from divprune.jsonl_log import JsonlLog
from divprune.methods import RandomTokens
from divprune.outputs import files_of, make_folder, safe_output
from divprune.progress import SILENT, Progress
from divprune.records import duration_text, provenance
from divprune.serving.question_keys import question_keys
from divprune.serving.questions import BatchQuestion
from divprune.tuned_setting import TUNED

FIRST_QUESTIONS = 3
"""Of each process, by which the time is estimated."""
GIGA = 2**30


def tune(options: TuneOptions, progress: Progress = SILENT, *, show_download: bool = False) -> Tuned | None:
    """Find how far a model may be pruned on some questions.

    Args:
        options: Whose questions, and what is wanted.
        progress: Is told how far it is.
        show_download: Whether the hub may draw its progress bars.

    Returns:
        What was found; its `setting` is None, and no file is written, if nothing keeps the promise. None in processes
        beside the first.

    Raises:
        ArgumentError: An argument cannot work.
        BatchError: The questions cannot be read.
        MediaError: An image is missing or damaged.
        TuningError: The questions show nothing, such as too few of them, or images that tell the model nothing.
    """
    options.check()
    questions = questions_with_images(
        options.source, options.prompt, recursive=options.recursive, limit=options.limit, progress=progress
    )
    files = [image for question in questions for image in question.files]
    safe_output("output", options.output, TUNED, (options.source, *files, *files_of(options.model)))
    if options.report is not None:
        safe_output("report", options.report, TUNE_REPORT, (options.source, options.output, *files))
    require_prunable(checkpoint_config(options.model), options.configs, {"image"})
    device = own_device(options.device)
    with progress.working("loading the model"):
        loaded = load_model(options.model, device, options.dtype, show_download=show_download)
    of_model = fingerprint(loaded.model)
    identity = _identity(options, questions, of_model, str(loaded.model.dtype))
    log = JsonlLog(options.output.parent, options.output.stem, identity, rank())
    if not options.resume and is_main_process():
        log.delete()
    join()
    memory = EncoderMemory(round(options.cache_gb * GIGA), _cache_folder(options, loaded, of_model))
    asker = Asker(loaded, questions, options.positions, options.max_new_tokens, memory, log)
    if asker.num_known:
        progress.note(f"an earlier run was interrupted: {asker.num_known} answers of it are there and not repeated")
    join()
    with argument_errors():
        search, costs = _prepared(options, asker, progress)
        found = _searched(options, search, costs)
        if not is_main_process():
            return None
        outcome = tuned(options, asker, search, costs, found, progress)
    if options.report is not None:
        write_tune_report(options.report, outcome)
    if outcome.setting is not None:
        outcome.setting.save(options.output)
        log.delete()
    return outcome


def _identity(options: TuneOptions, questions: Sequence[BatchQuestion], model: str, dtype: str) -> dict[str, Any]:
    """Return what answers depend on besides setting and question."""
    keys = question_keys(questions, trust_names=False)
    return {
        "model": model,
        "dtype": dtype,
        "questions": [keys[question.id].content for question in questions],
        "positions": options.positions,
        "max_new_tokens": options.max_new_tokens,
        "versions": provenance()["versions"],
    }


def _cache_folder(options: TuneOptions, loaded: LoadedModel, of_model: str) -> Path | None:
    """Return the folder of a model's encoded images: what they depend on besides the image is in its name.

    Raises:
        ArgumentError: It cannot be made.
    """
    if options.cache_folder is None:
        return None
    told = (of_model, str(loaded.model.dtype), loaded.model.device.type, provenance()["versions"])
    folder = options.cache_folder / hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    make_folder("cache_folder", folder)
    return folder


def _prepared(options: TuneOptions, asker: Asker, progress: Progress) -> tuple[Search, Costs]:
    """Ask the unpruned model, and divide the questions."""
    number = len(asker.questions)
    with progress.working("asking the first questions"):
        seconds = asker.ask_unpruned(range(min(number, FIRST_QUESTIONS * num_processes())), lambda _: None)
    progress.note(_plan(options, number, seconds / num_processes()))
    with progress.counting("unpruned, and blind", len(own_share(range(number)))) as advance:
        asker.ask_unpruned(range(number), advance)
    questions = asker.known_questions(range(number))
    error = 1 - options.confidence
    if not questions.sees(error):
        same = sum(reference.blind_is_same for reference in asker.references.values())
        raise TuningError(
            f"the model does not look at these images: without them it answers {same} of {number} questions the same, "
            f"and its answers are {questions.seen:.3f} nats a token likelier with them, which may be chance; there is "
            "nothing that pruning could lose, or to tune by"
        )
    choosing, confirming = split(questions)
    costs = Costs(asker, range(number))
    search = Search(questions, choosing, confirming, _measure(asker, progress), options.tolerance, _cost(costs), error)
    return search, costs


def _plan(options: TuneOptions, number: int, seconds: float) -> str:
    """Say what it will cost; `seconds` a question took so far, 0 if an earlier run has asked the first ones."""
    num_looks = ceil(log2(len(options.keep_ratios) + 1))
    choosing = ceil(number / 3)
    most = len(options.methods) * (1 if options.targets else num_looks) * choosing
    most += (1 + (1 if options.targets else MAX_CONFIRMATIONS)) * (number - choosing)
    every = len(options.methods) * len(options.keep_ratios) * number
    # Unpruned questions are answered, pruned ones only judged; this bounds both.
    time = f", about {duration_text((number + most) * seconds)} at most" if seconds else ""
    return (
        f"{number} questions: asked once unpruned and once without images, then at most {most} times pruned{time}; "
        f"every setting on every question would be {every}"
    )


def _cost(costs: Costs) -> Callable[[PruningSetting], float]:
    return lambda setting: costs.of(setting).visual_tokens


def _measure(asker: Asker, progress: Progress) -> Measure:
    """Return how a setting is asked about questions, with a bar for each look."""

    def measure(setting: PruningSetting, places: Sequence[int]) -> Sequence[float]:
        with progress.counting(f"{setting.method} at {setting.keep_ratio:g}", len(own_share(places))) as advance:
            return [each.log_likelihood for each in asker.ask(setting, places, advance)]

    return measure


def _searched(options: TuneOptions, search: Search, costs: Costs) -> Found:
    if not options.targets:
        return search.run(options.methods, options.keep_ratios)
    methods = [name for name in options.methods if name.partition(":")[0] != RandomTokens.name] or options.methods
    return search.within(methods, options.keep_ratios, _affordable(options, costs))


def _affordable(options: TuneOptions, costs: Costs) -> Callable[[PruningSetting], bool]:
    (name, most), *_ = options.targets.items()

    def cost(setting: PruningSetting) -> float:
        if name == "target_tokens":
            return costs.of(setting).visual_tokens
        return costs.of(setting).kv_bytes / GIGA if name == "target_kv_gb" else costs.pruned_ttft(setting)

    return lambda setting: cost(setting) <= most
