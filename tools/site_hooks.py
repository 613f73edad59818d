"""What mkdocs does beyond mkdocs.yml: pages of files outside docs/, links to them, and the methods' navigation."""

import re
from collections.abc import Mapping
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "divprune/embedded/checkpoint/README.md": "embedded-model.md",
    "divprune/embedded/video_checkpoint/README.md": "embedded-video-model.md",
}
"""Pages of the site that are files of the repository, which has them where its readers look."""
METHODS = "METHODS"
"""Stands in mkdocs.yml for the pages of all methods."""
SEARCH_BOOSTS = {
    "start.md": 2,
    "choose.md": 2,
    "faq.md": 2,
    "recipes/": 2,
    "serving.md": 3,
    "api/": 0.3,
    "changelog.md": 0.1,
}
"""How much a page weighs among what the search finds, by how its name begins; others weigh 1."""
_PICTURE = re.compile(
    r'<picture><source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)" ?/?>'
    r'<img alt="([^"]*)" src="([^"]+)" ?/?></picture>'
)
_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page for each method into the navigation."""
    folder = Path(config.docs_dir) / "methods"
    pages: list[Any] = [{path.stem: f"methods/{path.name}"} for path in sorted(folder.glob("*.md"))]
    own = [page for page in pages if "README" not in page]
    for entry in config.nav or []:
        for children in entry.values():
            if isinstance(children, list) and METHODS in children:
                place = children.index(METHODS)
                children[place : place + 1] = own
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the examples as files to download."""
    for origin, uri in PAGES.items():
        files.append(File.generated(config, uri, content=_without_front_matter(ROOT / origin)))
    for path in sorted((ROOT / "examples").rglob("*")):
        if path.suffix in (".py", ".toml", ".ipynb"):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave docs/ in the repository lead to the site's pages."""
    origins = {uri: origin for origin, uri in PAGES.items()}
    uri = page.file.src_uri
    boost = next((boost for start, boost in SEARCH_BOOSTS.items() if uri.startswith(start)), None)
    if boost is not None:
        page.meta["search"] = {"boost": boost}
    return relinked(markdown, origins.get(uri, f"docs/{uri}"), uri)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let figures follow the site's own switch between light and dark."""
    return switched(html)


def switched(html: str) -> str:
    """Put two images, of which the theme shows one, in the place of a picture that follows the browser's setting."""
    return _PICTURE.sub(r'<img alt="\2" src="\3#only-light"><img alt="\2" src="\1#only-dark">', html)


def relinked(markdown: str, origin: str, uri: str, pages: Mapping[str, str] = PAGES) -> str:
    """Rewrite the relative links of a page.

    Args:
        markdown: its text.
        origin: where it lies in the repository.
        uri: where it lies in the site.
        pages: the site's pages of files outside docs/, by where they lie in the repository.
    """

    def replaced(match: re.Match[str]) -> str:
        target = normpath(f"{dirname(origin)}/{match[2]}").removeprefix("/")
        if target.startswith("docs/"):
            own = target.removeprefix("docs/")
        elif target in pages:
            own = pages[target]
        elif target.startswith("examples/"):
            own = target
        else:
            return match[0]
        return f"{match[1]}{relpath(own, dirname(uri) or '.')}{match[3] or ''}{match[4]}"

    return _LINK.sub(replaced, markdown)


def _without_front_matter(path: Path) -> str:
    return re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.S)
