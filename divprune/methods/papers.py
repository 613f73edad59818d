"""The papers that methods come from, and their entries for a bibliography."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

_SPECIAL = re.compile(r"([&%$#_{}])")
_ARXIV = re.compile(r"arxiv\.org/abs/(\d{4}\.\d{4,5})")


@dataclass(frozen=True, slots=True)
class Paper:
    """The paper a method comes from.

    Attributes:
        title: Title of the paper.
        year: Year of publication; None where we know the method's rule and not where it was published.
        url: Where to read it, or None.
        citation: Authors and venue, in one line: family names, then venue and year, "Li, Wu and 3 others, ICML 2025".
    """

    title: str
    year: int | None
    url: str | None
    citation: str

    @property
    def authors(self) -> tuple[str, ...]:
        """The family names in `citation`, "others" at the end for those that it only counts; empty if it has none."""
        names, _, rest = self.citation.rpartition(", ")
        if self.year is None or not rest.endswith(str(self.year)):
            return ()
        return tuple("others" if name.endswith("others") else name for name in re.split(r", | and ", names) if name)

    @property
    def venue(self) -> str | None:
        """Where it appeared, as `citation` says; None for a preprint."""
        return self.citation.rpartition(", ")[2].removesuffix(str(self.year)).strip() or None if self.authors else None

    @property
    def arxiv(self) -> str | None:
        """The arXiv identifier in `url`, or None."""
        found = _ARXIV.search(self.url or "")
        return found[1] if found else None

    @property
    def key(self) -> str:
        """A BibTeX key: the first author, the year and the title's first word, in ASCII letters and digits."""
        words = re.split(r"\W+", self.title)
        parts = (*self.authors[:1], str(self.year or ""), next((word for word in words if word), "paper"))
        plain = unicodedata.normalize("NFKD", "".join(parts)).encode("ascii", "ignore").decode()
        return re.sub(r"[^a-z0-9]", "", plain.lower())


def bibliography(papers: Iterable[Paper]) -> str:
    """Return BibTeX entries, one for each paper in the order in which they come, blank lines between.

    A paper that several methods come from has one entry; of two with the same key, the second gets a letter.
    """
    entries: dict[str, str] = {}
    for paper in dict.fromkeys(papers):
        others = sum(re.fullmatch(f"{paper.key}[b-z]?", key) is not None for key in entries)
        key = paper.key + (chr(ord("a") + others) if others else "")
        entries[key] = _entry(paper, key)
    return "\n\n".join(entries.values())


def _entry(paper: Paper, key: str) -> str:
    fields = {
        # Braces keep the capitals.
        "title": f"{{{_escaped(paper.title)}}}",
        "author": _escaped(" and ".join(paper.authors)),
        "booktitle": _escaped(paper.venue or ""),
        "year": str(paper.year or ""),
        "eprint": paper.arxiv or "",
        "archivePrefix": "arXiv" if paper.arxiv else "",
        "url": paper.url or "",
        "note": "" if paper.authors else _escaped(paper.citation),
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{'inproceedings' if paper.venue else 'misc'}{{{key},", *lines, "}"])


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
