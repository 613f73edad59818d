"""Words of the report can be read: 4.5 to 1 at least, in both colour schemes (WCAG 2.2, 1.4.3)."""

import re
from pathlib import Path

import pytest

import divprune
from tests.support.contrast import contrast

STYLE = (Path(divprune.__file__).parent / "demo" / "templates" / "report.css").read_text(encoding="utf-8")
SCHEMES = dict(zip(("light", "dark"), re.findall(r":root \{(.*?)\}", STYLE, flags=re.S), strict=True))
GROUNDS = ("--page", "--card", "--bad-soft")
# Words never stand on these.
OTHER = {"--line", "--accent-soft", *GROUNDS}


def colours(scheme: str) -> dict[str, str]:
    return dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", SCHEMES[scheme]))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_words_stand_out_from_every_ground(scheme: str) -> None:
    found = colours(scheme)
    words = found.keys() - OTHER
    assert words == {"--ink", "--soft", "--accent", "--good", "--bad"}
    pairs = {(word, ground): contrast(found[word], found[ground]) for word in words for ground in GROUNDS}
    assert {pair: round(ratio, 2) for pair, ratio in pairs.items() if ratio < 4.5} == {}


def test_words_have_no_other_colours() -> None:
    """What the test above knows is all: words are neither coloured otherwise nor made fainter."""
    words = re.findall(r"(?<![\w-])color: ([^;]+);", STYLE)
    assert words
    assert set(words) <= {f"var({name})" for name in ("--ink", "--soft", "--accent", "--good", "--bad")}
    # Numbers on patches wait until they are pointed at; the veil lies on images.
    faint = [rule.strip() for rule in re.findall(r"([^{}]+)\{[^}]*(?<!-)opacity: (?:0|\.)", STYLE)]
    assert faint == [".veil", ".kept text"]


def test_the_measure_is_that_of_the_guidelines() -> None:
    assert contrast("#000000", "#ffffff") == contrast("#ffffff", "#000000") == pytest.approx(21, rel=1e-12)
    assert round(contrast("#777777", "#ffffff"), 2) == 4.48
