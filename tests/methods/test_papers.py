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


CITED = """
divprune 2503.02175 CVPR 2025 Alvar 4 | fastv 2403.06764 ECCV 2024 Chen 7 | vtw 2405.05803 AAAI 2025 Lin 4
pyramiddrop 2410.17247 CVPR 2025 Xing 11 | fitprune 2409.10197 AAAI 2025 Ye 4 | sparsevlm 2410.04417 ICML 2025 Zhang 11
dart 2502.11494 EMNLP 2025 Wen 8 | tome 2210.09461 ICLR 2023 Bolya 6 | prumerge 2403.15388 ICCV 2025 Shang 5
visionzip 2412.04467 CVPR 2025 Yang 7 | vispruner 2412.01818 ICCV 2025 Zhang 9
cdpruner 2506.10967 NeurIPS 2025 Zhang 8
m3 2405.17430 ICLR 2025 Cai 4 | downsampling 2510.07143 ACL 2026 Liao 13 | scope 2510.24214 NeurIPS 2025 Deng 4
mmtok 2508.18264 ICLR 2026 Dong 6 | mmr 2602.13315 - 2026 Tan 7 | id-selection 2604.05601 - 2026 Huang 5
otprune 2602.20205 CVPR 2026 Chen 12 | agilepruner 2603.01236 ICLR 2026 Baek 4 | eadp 2607.02484 ECCV 2026 Wang 3
tops 2606.27161 - 2026 Wang 14 | evs 2510.14624 - 2025 Bagrov 4 | cls-attention 2412.01818 - 2024 Zhang 9
holov 2510.02912 NeurIPS 2025 Zou 8 | hiprune 2508.00553 - 2025 Liu 6 | vscan 2505.22654 TMLR 2026 Zhang 10
globalcom2 2501.05179 AAAI 2026 Liu 9 | pact 2504.08966 CVPR 2025 Dhouib 4 | dycoke 2411.15024 CVPR 2025 Tao 5
vidcom2 2505.14454 EMNLP 2025 Liu 4 | prunevid 2412.16117 Findings of ACL 2025 Huang 3
holitom 2505.21334 NeurIPS 2025 Shao 6 | fastvid 2503.11187 NeurIPS 2025 Shen 7 | flashvid 2602.08024 ICLR 2026 Fan 6
"""
"""arXiv number, venue ("-" for a preprint), year, first author and number of names (EVS counts its others as one)."""
SHARED = {"divprune-star": "divprune", "minmax": "divprune", "prumerge-plus": "prumerge"}


def test_every_paper_is_cited_by_number_venue_year_and_authors() -> None:
    by_name = {method.name: method.paper for method in BUILT_IN if method.paper is not None}
    cited = {entry.split()[0]: entry.split()[1:] for line in CITED.strip().splitlines() for entry in line.split(" | ")}
    assert by_name.keys() == cited.keys() | SHARED.keys()
    for name, (arxiv, *venue, year, first, count) in cited.items():
        paper = by_name[name]
        assert (paper.arxiv, paper.venue or "-", paper.year) == (arxiv, " ".join(venue), int(year)), name
        assert (paper.authors[0], len(paper.authors)) == (first, int(count)), name
    assert all(by_name[name] == by_name[other] for name, other in SHARED.items())


def test_the_bibliography_has_every_paper_once() -> None:
    text = bibliography(info.paper for info in available_methods() if info.paper)
    keys = re.findall(r"^@\w+\{(\w+),$", text, flags=re.M)
    assert len(keys) == len(set(keys)) == len(PAPERS)
    for paper in PAPERS:
        assert text.count(f"eprint = {{{paper.arxiv}}}") == sum(other.arxiv == paper.arxiv for other in PAPERS)
