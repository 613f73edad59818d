"""What `divprune eval` does with data sets: cells run by lmms-eval, and a table of what they scored."""

from pathlib import Path

from divprune.cli.eval_cells import asked_cells
from divprune.cli.eval_choice import EvalArguments, check_harness
from divprune.cli.eval_table import as_rows, entries_of, metrics_line, scores_table
from divprune.cli.harness_run import run_in_harness
from divprune.cli.screen import Screen
from divprune.distributed import is_main_process
from divprune.evaluation.results import Results
from divprune.experiments.comparison import compared
from divprune.experiments.comparison_text import LEGEND, reasons, shortfalls

OUTPUT = Path("results/eval")
TOKENS = "tokens: visual tokens kept of a picture or clip, in the mean."


def evaluate_suite(typed: EvalArguments, screen: Screen) -> None:
    """Run what has no record yet, and show all of it.

    Raises:
        CommandError: an option cannot work.
        MissingDependencyError: lmms-eval is not installed.
        EvaluationError: something that a cell needs is missing, or a scorer failed.
        RecordError: a record that is there is broken.
    """
    check_harness(typed)
    with screen.working("planning"):
        asked = asked_cells(typed)
    output = typed.output or OUTPUT
    run_in_harness(
        [each.cell for each in asked if each.refusal is None],
        typed.running,
        screen,
        output=output,
        limit=typed.limit,
        resume=typed.resume,
        debug=typed.debug,
    )
    if not is_main_process():
        return
    results = Results(output)
    with screen.working("comparing"):
        found = compared(entries_of(asked, results), results)
    screen.show(scores_table(found, results))
    for line in (*shortfalls(found), *reasons(found), metrics_line(found), LEGEND, TOKENS):
        screen.show(line)
    screen.show(f"Records: {output}")
    shares = {
        label: {"share_kept": each.value, "low": each.low, "high": each.high} for label, each in found.shares.items()
    }
    screen.result({"output": str(output), "rows": as_rows(found, results), "shares_kept": shares})
