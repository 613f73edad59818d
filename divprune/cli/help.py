"""How commands show their help: options in panels, flags without a type, and an example."""

from copy import copy
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

MODEL = "Model and input"
PRUNING = "Pruning"
RUNNING = "Running"
OUTPUT = "Output"
"""Panels of options; what only one command takes stands in the first, without a name of its own."""


class _ShortFlags:
    """Shows flags by what they change: no type, and of a pair the one that is not the default."""

    params: list[Any]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        parsed = self.params
        self.params = [_as_shown(parameter) for parameter in parsed]
        try:
            super().format_help(ctx, formatter)  # type: ignore[misc]
        finally:
            self.params = parsed

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option that asks for help."""
        found = super().get_help_option(ctx)  # type: ignore[misc]
        return None if found is None else _as_shown(found)


class Command(_ShortFlags, TyperCommand):
    """A command."""


class CommandGroup(_ShortFlags, TyperGroup):
    """A command with commands of its own."""


def _as_shown(parameter: Any) -> Any:
    if isinstance(parameter, TyperArgument):
        argument: Any = copy(parameter)
        argument.display_type_rich = lambda ctx: None
        return argument
    if not getattr(parameter, "is_flag", False):
        return parameter
    shown = copy(parameter)
    shown.metavar = ""
    shown.show_default = False
    if shown.secondary_opts and shown.default is not False:
        shown.opts, shown.secondary_opts = shown.secondary_opts, []
    return shown


def examples(*commands: str) -> str:
    """Return what stands below a command's help: command lines that work."""
    return "\n".join((f"Example{'s' if len(commands) > 1 else ''}:", *(f"  {line}" for line in commands)))
