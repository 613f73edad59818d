"""Options that several commands take."""

from enum import StrEnum
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the logs of other libraries.")]


class Dtype(StrEnum):
    """The number formats that `--dtype` takes."""

    auto = "auto"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
