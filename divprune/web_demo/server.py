"""Serve the page of the web demo: the model is loaded once, and a visitor's browser asks nobody but this server."""

import errno
import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from divprune.errors import ArgumentError, MissingDependencyError, argument_errors, first_line
from divprune.progress import SILENT, Progress
from divprune.web_demo.options import WebDemoOptions

if TYPE_CHECKING:
    from divprune.checkpoints import LoadedModel

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; form-action 'self'"
)
"""Whatever gradio's page may want one day, a browser asks no other host."""
_GRACE_SECONDS = 2
_FONTS = ("system-ui", "sans-serif")
_CODE_FONTS = ("ui-monospace", "monospace")
# gradio's own are paler than 4.5 to 1.
_COLORS = {
    "body_text_color_subdued": "#55605c",
    "body_text_color_subdued_dark": "#a3aeaa",
    "button_primary_background_fill": "#0f766e",
    "button_primary_background_fill_dark": "#0f766e",
    "button_primary_background_fill_hover": "#115e59",
    "button_primary_background_fill_hover_dark": "#115e59",
}


def require_gradio() -> None:
    """Refuse to go on without gradio.

    Raises:
        MissingDependencyError: it is not installed.
    """
    if find_spec("gradio") is None:
        raise MissingDependencyError(
            'the web demo needs gradio: pip install "divprune[demo]" (`divprune demo --export FOLDER` does without)'
        )


def serve_demo(options: WebDemoOptions, progress: Progress = SILENT, *, show_download: bool = False) -> None:
    """Load the model and serve the page until somebody interrupts.

    Args:
        options: the model, the page and where it listens.
        progress: is told how far it is, and the address.
        show_download: whether the hub may draw its progress bars.

    Raises:
        MissingDependencyError: gradio is not installed.
        ArgumentError: an argument cannot work, or somebody else listens at the port.
        DivpruneError: the model cannot be loaded or pruned.
    """
    options.check()
    require_gradio()
    _require_free(options)
    import uvicorn

    app = demo_app(options, _loaded(options, progress, show_download))
    host = f"[{options.host}]" if ":" in options.host else options.host
    progress.note(f"the demo is at http://{host}:{options.port} (Ctrl-C ends it)")
    # Browsers keep a connection open for as long as they show the page.
    uvicorn.run(app, host=options.host, port=options.port, log_level="error", timeout_graceful_shutdown=_GRACE_SECONDS)


def demo_app(options: WebDemoOptions, loaded: "LoadedModel") -> Any:
    """Return the page as an ASGI application.

    Raises:
        DivpruneError: a method of `options` cannot prune the model.
    """
    import fastapi
    import gradio

    from divprune.web_demo.page import DemoPage
    from divprune.web_demo.page_layout import page_head
    from divprune.web_demo.shared_model import SharedModel
    from divprune.web_demo.uploads import MAX_UPLOAD_BYTES
    from divprune.web_demo.usable_methods import require_usable, usable_methods

    with argument_errors():
        require_usable(loaded, options.methods)
    page = DemoPage(SharedModel(loaded, options.max_new_tokens), options, usable_methods(loaded))
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_with_policy)
    return gradio.mount_gradio_app(
        app,
        page.blocks,
        path="/",
        ssr_mode=False,
        show_error=False,
        max_file_size=MAX_UPLOAD_BYTES,
        footer_links=[],
        run_history=False,
        pwa=False,
        enable_monitoring=False,
        theme=gradio.themes.Base(primary_hue="teal", font=_FONTS, font_mono=_CODE_FONTS).set(**_COLORS),
        head=page_head(),
    )


async def _with_policy(request: Any, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _loaded(options: WebDemoOptions, progress: Progress, show_download: bool) -> "LoadedModel":
    with progress.working("starting"):
        from divprune.checkpoints import choose_device, load_model
    device = choose_device(options.device)
    with progress.working("loading the model"):
        return load_model(options.model, device, options.dtype, show_download=show_download)


def _require_free(options: WebDemoOptions) -> None:
    """Check that nobody else listens there."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((options.host, options.port))
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: f"`port` {options.port} is in use; stop what listens there, or give another",
            errno.EACCES: f"`port` {options.port} is not for this user; give one above 1023",
        }
        reason = reasons.get(error.errno or 0, f"`host` {options.host} cannot be listened at ({first_line(error)})")
        raise ArgumentError(reason) from None
