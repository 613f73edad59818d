"""Reading the record `eval-scenes`: references, curves and single rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from divprune.records import Record

REFERENCES = ("unpruned", "picture withheld")
SHARE = 0.098
"""The fraction of tokens kept at which all methods are compared: the paper's."""

Row = Mapping[str, Any]


def answered(suite: Record) -> Sequence[Row]:
    """Return the rows that are no refusals."""
    return [row for row in suite.rows if row["refusal"] is None]


def reference(suite: Record, name: str) -> Row:
    """Return the row of one of `REFERENCES`."""
    return next(row for row in suite.rows if row["method"] == name)


def curves(suite: Record) -> dict[str, list[Row]]:
    """Return each method's rows from the cheapest to the dearest, without repetitions.

    Rows in which a method finds its own number of tokens are left out where it can also be told one.
    """
    found: dict[str, dict[float, Row]] = {}
    for row in answered(suite):
        if row["method"] not in REFERENCES:
            found.setdefault(row["method"], {}).setdefault(row["flop_percent"], row)
    told = {row["method"] for row in answered(suite) if row["matching"] is not None}
    return {
        method: [row for _, row in sorted(rows.items()) if row["matching"] is not None or method not in told]
        for method, rows in found.items()
    }


def at_share(suite: Record, keep_ratio: float = SHARE) -> list[Row]:
    """Return one row a method, at equal tokens, or as the method says itself; best score last."""
    rows = [
        row
        for row in answered(suite)
        if row["method"] not in REFERENCES
        and (row["matching"], row["keep_ratio"]) in (("tokens", keep_ratio), (None, None))
    ]
    told = {row["method"] for row in rows if row["matching"] is not None}
    chosen = [row for row in rows if row["matching"] is not None or row["method"] not in told]
    return sorted(chosen, key=lambda row: float(row["mean_percent"]))


def short_names(methods: Iterable[str]) -> dict[str, str]:
    """Return each method's name without parameters, but for those that tell it from others of that name.

    "vtw:layer=2" alone is "vtw"; beside "sparsevlm:tokens=64,recycle=true", "sparsevlm:tokens=192,recycle=true" is
    "sparsevlm tokens=192".
    """
    parameters: dict[str, dict[str, set[str]]] = {}
    for method in methods:
        name, _, pairs = method.partition(":")
        parameters.setdefault(name, {})[method] = set(filter(None, pairs.split(",")))
    return {
        method: " ".join([name, *sorted(own - set[str].intersection(*found.values()))])
        for name, found in parameters.items()
        for method, own in found.items()
    }
