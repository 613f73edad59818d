"""What methods say of their papers: fidelity, citations, BibTeX."""

import re
from typing import ClassVar, get_args

import pytest

from divprune.methods import Fidelity, Method, Paper, available_methods, bibliography, registry

BUILT_IN = registry.built_in()
PAPERS = list(dict.fromkeys(method.paper for method in BUILT_IN if method.paper))


@pytest.mark.parametrize("method", BUILT_IN, ids=lambda method: method.name)
def test_every_built_in_method_says_how_near_its_paper_it_is(method: type[Method]) -> None:
    """In its own class, not by inheritance; and what deviates stands in the docstring."""
    assert vars(method)["fidelity"] in get_args(Fidelity)
    text = method.__doc__ or ""
    assert (method.fidelity == "documented") == ("Deviation" in text)
    assert (method.fidelity == "stand-in") == ("Stand-in" in text)


def test_third_parties_are_unverified_and_other_words_are_refused() -> None:
    assert Method.fidelity == "unverified"
    with pytest.raises(TypeError, match=r"Wrong\.fidelity must be one of 'exact', 'documented', 'stand-in', 'unver"):

        class Wrong(Method):
            name: ClassVar[str] = "wrong"
            fidelity: ClassVar[Fidelity] = "good"  # type: ignore[assignment]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.key)
def test_citations_are_complete(paper: Paper) -> None:
    assert paper.authors
    assert all(re.fullmatch(r"others|[A-Z][A-Za-z-]+", author) for author in paper.authors)
    assert paper.arxiv is not None
    assert paper.url == f"https://arxiv.org/abs/{paper.arxiv}"
    assert len(paper.title.split()) > 2
    assert paper.year is not None
    assert paper.venue is None or re.fullmatch(r"[A-Z][A-Za-z ]+", paper.venue)


def test_parts_of_a_citation() -> None:
    paper = Paper("A title", 2026, "https://arxiv.org/abs/2601.01234", "Li, Wu and 3 others, ICML 2026")
    assert (paper.authors, paper.venue, paper.arxiv) == (("Li", "Wu", "others"), "ICML", "2601.01234")
    preprint = Paper("A title", 2026, None, "Li, Wu, 2026")
    assert (preprint.authors, preprint.venue, preprint.arxiv) == (("Li", "Wu"), None, None)
    unknown = Paper("A title", None, None, "somebody")
    assert (unknown.authors, unknown.venue) == ((), None)


def test_an_entry_is_bibtex() -> None:
    paper = Paper(
        "Tokens & 50% of {them}", 2026, "https://arxiv.org/abs/2601.01234", "Müller, Wu and 3 others, ICML 2026"
    )
    assert bibliography([paper]) == "\n".join(
        [
            "@inproceedings{muller2026tokens,",
            r"  title = {{Tokens \& 50\% of \{them\}}},",
            "  author = {Müller and Wu and others},",
            "  booktitle = {ICML},",
            "  year = {2026},",
            "  eprint = {2601.01234},",
            "  archivePrefix = {arXiv},",
            "  url = {https://arxiv.org/abs/2601.01234},",
            "}",
        ]
    )
    assert bibliography([Paper("X", None, None, "a friend")]) == "@misc{x,\n  title = {{X}},\n  note = {a friend},\n}"


def test_each_paper_has_one_entry_and_a_key_of_its_own() -> None:
    text = bibliography(info.paper for info in available_methods() if info.paper)
    keys = re.findall(r"^@(?:inproceedings|misc)\{(.*),$", text, flags=re.MULTILINE)
    assert len(keys) == len(set(keys)) == text.count("\n}") == len(set(PAPERS))
    assert all(re.fullmatch(r"[a-z][a-z0-9]+", key) for key in keys)
    assert {"alvar2025divprune", "shang2025llava", "wang2026tops"} <= set(keys)
    same = [Paper("Tokens again", 2026, None, f"Li, {name}, 2026") for name in ("Wu", "Xu", "Yu")]
    assert re.findall(r"\{(li.*),", bibliography(same)) == ["li2026tokens", "li2026tokensb", "li2026tokensc"]
    assert bibliography([same[0], same[0]]) == bibliography(same[:1])


def test_braces_balance() -> None:
    text = bibliography(PAPERS)
    unescaped = re.sub(r"\\[{}]", "", text)
    assert unescaped.count("{") == unescaped.count("}")
