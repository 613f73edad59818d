"""The web demo: an image beside what two methods keep of it, as a page with a model behind it, or as plain files.

`divprune run` answers a list of questions once (`divprune.demo`); here somebody moves a slider and asks.

from divprune.web_demo import ExportOptions, export_demo

export_demo(ExportOptions(Path("gallery")))
"""

from typing import TYPE_CHECKING, Any

from divprune.web_demo.options import ExportOptions, WebDemoOptions

if TYPE_CHECKING:
    from divprune.web_demo.export import Exported, export_demo
    from divprune.web_demo.server import serve_demo

__all__ = ["ExportOptions", "Exported", "WebDemoOptions", "export_demo", "serve_demo"]

_HOME = {"Exported": "export", "export_demo": "export", "serve_demo": "server"}


def __getattr__(name: str) -> Any:
    """Import what needs torch or gradio when it is first asked for."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"divprune.web_demo.{_HOME[name]}"), name)
