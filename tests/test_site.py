"""The documentation site: what its check finds, how links are carried over; every page and name has a place."""

import re
from pathlib import Path

import pytest
import typer

import divprune
from divprune.cli.main import app
from tools.check_site import problems

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

PAGE = '<html><head>{head}</head><body><a href="https://example.org/">elsewhere</a>{body}</body></html>'


@pytest.mark.parametrize(
    ("head", "body", "problem"),
    [
        ("", '<img src="there.png">', None),
        ("", '<img src="gone.png">', "lacks gone.png"),
        ("", '<img src="https://example.org/a.png">', "loads https://example.org/a.png"),
        ("", '<source srcset="there.png 1x, //example.org/b.png 2x">', "loads //example.org/b.png"),
        ('<script src="https://example.org/a.js"></script>', "", "loads https://example.org/a.js"),
        ('<link rel="stylesheet" href="http://example.org/a.css">', "", "loads http://example.org/a.css"),
        ('<link rel="canonical" href="https://example.org/">', "", None),
        ("<style>@import 'https://example.org/c.css';</style>", "", "loads https://example.org/c.css"),
        ("", '<p style="background: url(https://example.org/d.png)">', "loads https://example.org/d.png"),
        ("", '<pre class="mermaid">graph TD</pre>', "mermaid diagram"),
        ("", '<a href="there.png#part">there</a><a href="mailto:a@example.org">write</a>', None),
        ("", '<a href="gone.html">gone</a>', "lacks gone.html"),
        ("", '<img src="data:image/png;base64,AAAA">', None),
    ],
)
def test_what_a_page_loads_is_its_own_and_is_there(tmp_path: Path, head: str, body: str, problem: str | None) -> None:
    (tmp_path / "there.png").touch()
    (tmp_path / "index.html").write_text(PAGE.format(head=head, body=body))
    found = list(problems(tmp_path))
    assert len(found) == (problem is not None)
    assert all(problem in each for each in found)


def test_fonts_of_style_sheets_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "site.css").write_text("@font-face { src: url('https://example.org/font.woff2') }")
    assert list(problems(tmp_path)) == ["site.css loads https://example.org/font.woff2"]


def test_links_that_leave_the_docs_lead_to_pages_of_the_site() -> None:
    relinked = pytest.importorskip("tools.site_hooks", exc_type=ImportError).relinked
    lines = {
        "[a](../../CONTRIBUTING.md#add-a-method)": "[a](../contributing.md#add-a-method)",
        "[a](../../examples/batch.py)": "[a](../examples/batch.py)",
        "[a](../serving.md)": "[a](../serving.md)",
        "[a](https://example.org/x.md)": "[a](https://example.org/x.md)",
        "[a](#here)": "[a](#here)",
    }
    for before, after in lines.items():
        assert relinked(before, "docs/recipes/batch.md", "recipes/batch.md") == after
    assert relinked("[a](docs/versions.md)", "CONTRIBUTING.md", "contributing.md") == "[a](versions.md)"


def test_figures_follow_the_switch_of_the_site() -> None:
    switched = pytest.importorskip("tools.site_hooks", exc_type=ImportError).switched
    source = '<source media="(prefers-color-scheme: dark)" srcset="figures/a-dark.png">'
    picture = f'<p><picture>{source}<img alt="A" src="figures/a.png"></picture></p>'
    both = '<img alt="A" src="figures/a.png#only-light"><img alt="A" src="figures/a-dark.png#only-dark">'
    assert switched(picture) == f"<p>{both}</p>"
    assert switched('<img alt="A" src="a.png">') == '<img alt="A" src="a.png">'


def test_every_public_name_is_in_the_reference() -> None:
    listed = re.findall(r"^::: (\S+)$", "".join(page.read_text() for page in (DOCS / "api").glob("*.md")), flags=re.M)
    assert len(set(listed)) == len(listed)
    assert {name.rpartition(".")[2] for name in listed} >= set(divprune.__all__) - {"__version__"}


def test_every_page_has_a_place_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.md", text))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    methods = {name for name in there if name.startswith("methods/") and not name.endswith("README.md")}
    assert there - methods <= named
    assert "- METHODS" in text


def test_the_site_needs_no_font_or_script_of_others() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert re.search(r"^  font: false$", text, flags=re.M)
    assert "http" not in text


COMMAND_PAGES = [DOCS / f"{name}.md" for name in ("index", "start", "choose", "faq")] + [
    *(DOCS / "recipes").glob("*.md")
]


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=lambda page: page.stem)
def test_commands_have_the_options_that_pages_give_them(page: Path) -> None:
    commands = typer.main.get_command(app).commands
    for line in re.findall(r"^divprune (.+)$", page.read_text(encoding="utf-8"), flags=re.M):
        name, *words = re.sub(r" -- .*| #.*", "", line).split()
        if name.startswith("-"):
            continue
        known = {
            option for parameter in commands[name].params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= known, line
