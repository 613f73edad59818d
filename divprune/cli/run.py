"""`divprune run`, step by step: load the model, ask, show, report."""

from collections.abc import Sequence

from divprune.checkpoints import EMBEDDED, LoadedModel, choose_device, load_model
from divprune.cli.answering import Pruner, Row, answer
from divprune.cli.examples import Ask
from divprune.cli.failures import CommandError
from divprune.cli.options import RunOptions
from divprune.cli.report import write_report
from divprune.cli.screen import Screen, advance
from divprune.cli.summary import Summary
from divprune.cli.tables import answers_table, summary_text
from divprune.errors import UnknownMethodError
from divprune.huggingface import supported_families
from divprune.methods import get_method
from divprune.prompting import has_chat_template


def run(options: RunOptions, asks: Sequence[Ask], screen: Screen) -> None:
    """Ask every question twice, show what came out, and write the report.

    Args:
        options: checked by `check_options`.
        asks: the questions and their media, at least one.
        screen: where everything is shown.
    """
    pruner = _pruner(options)
    device = choose_device(options.device)
    with screen.working("loading the model"):
        loaded = load_model(options.model, device, options.dtype, show_download=screen.is_terminal)
    _check_media(loaded, asks)
    _check_layer(loaded, pruner)
    _tell(loaded, options, screen)
    rows = _answers(loaded, asks, pruner, options, screen)
    if options.compare:
        screen.show("Every question twice: above from all visual tokens, below from the kept ones.")
    screen.show(answers_table(rows))
    screen.show(summary_text(Summary(rows)))
    if options.report is not None:
        with screen.working("writing the report"):
            write_report(options.report, rows, loaded, options.method, pruner)
        screen.show(f"Report: {options.report} (open it in a browser)")
    else:
        screen.show("Add --report FILE.html to see which patches were kept.")
    screen.result(
        {
            "model": loaded.name,
            "method": options.method,
            "keep_ratio": pruner.keep_ratio,
            "rows": [row.as_json() for row in rows],
        }
    )


def _pruner(options: RunOptions) -> Pruner:
    try:
        method = get_method(options.method)
    except UnknownMethodError as error:
        raise CommandError(f"{error} (see `divprune methods`)") from None
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None
    asks = options.keep_ratio is not None or options.num_keep is not None
    if method.count == "schedule" and asks:
        raise CommandError(f"--method {method.name} says itself how much it keeps; leave out the --keep options")
    says_itself = method.count == "schedule" or (method.count == "adaptive" and not asks)
    return Pruner(method, None if says_itself else options.budget)


def _check_layer(loaded: LoadedModel, pruner: Pruner) -> None:
    """Refuse a layer that the model does not have, and what else only the model can tell, before the questions."""
    try:
        with pruner.on(loaded):
            pass
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None


def _check_media(loaded: LoadedModel, asks: Sequence[Ask]) -> None:
    model_type = loaded.model.config.model_type
    family = next(family for family in supported_families() if family.name == model_type)
    kinds = {medium.kind for ask in asks for medium in ask.media}
    for kind in sorted(kinds - set(family.modalities)):
        able = ", ".join(other.name for other in supported_families() if kind in other.modalities)
        raise CommandError(f"{loaded.name} is a {model_type!r} model and takes no {kind}; these families do: {able}")


def _tell(loaded: LoadedModel, options: RunOptions, screen: Screen) -> None:
    if loaded.name == EMBEDDED and (options.images or options.videos):
        screen.note("the embedded model knows generated scenes only; give --model for photographs")
    if not has_chat_template(loaded):
        screen.note(f"{loaded.name} has no chat template; the prompt is placeholders and question, nothing else")


def _answers(
    loaded: LoadedModel, asks: Sequence[Ask], pruner: Pruner, options: RunOptions, screen: Screen
) -> list[Row]:
    rows = []
    with screen.counting("asking", len(asks)) as progress:
        for ask in asks:
            rows.append(
                answer(
                    loaded,
                    ask,
                    pruner,
                    compare=options.compare,
                    max_new_tokens=options.max_new_tokens,
                    repeats=options.repeats,
                )
            )
            advance(progress)
    return rows
