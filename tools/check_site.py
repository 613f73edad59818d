"""Check the built site: `python -m tools.check_site site`. A browser must need nothing from another host to show it.

Scripts, styles, fonts, images and frames come from the site itself, and are there, as are the pages it links to; links
to other hosts are a reader's choice.
Nothing on a page asks for a diagram, for which the theme's script would load one from elsewhere.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {
    ("script", "src"), ("img", "src"), ("img", "srcset"), ("source", "src"), ("source", "srcset"), ("iframe", "src"),
    ("video", "src"), ("audio", "src"), ("embed", "src"), ("object", "data"), ("image", "href"), ("use", "href"),
}  # fmt: skip
_LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "prefetch", "manifest"}
_IN_STYLE = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


class _Page(HTMLParser):
    """Collects what a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.has_diagram = False
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        self.has_diagram |= "mermaid" in given.get("class", "").split()
        if tag == "link" and _LOADED_LINKS & set(given.get("rel", "").split()):
            self.loaded.append(given["href"])
        for name, value in given.items():
            if (tag, name) in _LOADED:
                self.loaded += _candidates(value) if name == "srcset" else [value]
        self.loaded += in_style(given.get("style", ""))
        if tag == "a" and not urlsplit(given.get("href", "")).scheme:
            self.linked.append(given.get("href", ""))

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.loaded += in_style(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False


def _candidates(srcset: str) -> list[str]:
    return [each.split()[0] for each in srcset.split(",") if each.strip()]


def in_style(text: str) -> list[str]:
    """Addresses that a style sheet loads."""
    return [first or second for first, second in _IN_STYLE.findall(text)]


def problems(site: Path) -> Iterator[str]:
    """Say of each page and style sheet what it loads from elsewhere, or what is not there."""
    for path in sorted(site.rglob("*.html")):
        page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
        yield from _wrong(site, path, page.loaded + page.linked)
        if page.has_diagram:
            yield f"{path.relative_to(site)} has a mermaid diagram, which needs a script from another host"
    for path in sorted(site.rglob("*.css")):
        yield from _wrong(site, path, in_style(path.read_text(encoding="utf-8")))


def _wrong(site: Path, path: Path, addresses: list[str]) -> Iterator[str]:
    for address in addresses:
        parts = urlsplit(address)
        name = path.relative_to(site)
        if parts.scheme not in ("", "data") or parts.netloc:
            yield f"{name} loads {address}"
        elif parts.scheme == "" and parts.path:
            folder = site if parts.path.startswith("/") else path.parent
            target = folder / unquote(parts.path).lstrip("/")
            if not (target / "index.html" if target.is_dir() else target).is_file():
                yield f"{name} lacks {address}"


def main() -> None:
    site = Path(sys.argv[1])
    found = list(problems(site))
    number = len(list(site.rglob("*.html")))
    if found or not number:
        sys.exit("\n".join([*found, f"{site}: {len(found)} problems on {number} pages"]))
    print(f"{site}: {number} pages, which need nothing from another host; open {site / 'index.html'}")


if __name__ == "__main__":
    main()
