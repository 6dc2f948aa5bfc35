"""The running server: a private folder for uploads, the workers, the guard, and their end."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lisrd.errors import InputError, MissingExtraError
from lisrd.web.guard import Application, Guard
from lisrd.web.limits import Limits
from lisrd.web.request import Match, Menu
from lisrd.web.workers import Staff, Workers

#: Connections at a time; each open page holds two.
_MAX_CONNECTIONS = 1000
#: Gradio remembers every value of a visit, answers too, for pages that have a state. This one has none: what is left
#: serves the matches under way.
_SESSIONS = 16
#: Longer than clients keep a connection that is idle: otherwise one may be closed under their next question.
_KEEP_ALIVE_SECONDS = 75
#: An open page's event stream would otherwise hold up the end.
_GRACE_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where the page is served; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 7860


@dataclass(frozen=True, slots=True)
class Serving:
    """A page that answers: its address, its folder of uploads, its workers."""

    url: str
    uploads: Path
    workers: Workers
    _thread: threading.Thread

    def wait(self) -> None:
        """Until it ends. Short waits, so that Ctrl-C is heard on every system."""
        while self._thread.is_alive():
            self._thread.join(0.5)


@contextmanager
def serving(staff: Staff, count: int, place: Place = Place()) -> Iterator[Serving]:
    """The page with `count` workers; on leaving, connections, processes and every upload are gone.

    Raises:
        InputError: the address is taken or not ours, or a detector or describer cannot be built.
        MissingExtraError: gradio is not installed.
    """
    _require_gradio()
    listening = _listen(place)
    with listening, _uploads() as folder:
        workers = Workers(staff, count)
        try:
            server = _server(workers, folder, count)
            with _sweeping(folder, staff.limits), _running(server, listening) as thread:
                host, port = listening.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                yield Serving(f"http://{shown}:{port}/", folder, workers, thread)
        finally:
            workers.close()


def gradio_app(match: Match, menu: Menu, folder: Path, limits: Limits, count: int) -> Application:
    """The page as gradio serves it, before the guard; `match` answers, `count` at a time."""
    import gradio as gr
    from fastapi import FastAPI

    from lisrd.web.element import head, static_text
    from lisrd.web.page import build_page, theme

    page = build_page(match, menu, folder, limits, count)
    page.state_session_capacity = _SESSIONS
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        show_error=False,
        max_file_size=limits.upload,
        theme=theme(),
        css=static_text("page.css"),
        head=head(),
    )
    # Mounted and not launched, gradio leaves out its own check that a visitor's file is an upload.
    page.has_launched = True
    return cast(Application, app)


def _server(workers: Workers, folder: Path, count: int):  # type: ignore[no-untyped-def]  # uvicorn is optional
    import uvicorn

    limits = workers.staff.limits
    app = gradio_app(workers.match, workers.menu, folder, limits, count)
    config = uvicorn.Config(
        Guard(app, folder, limits),  # type: ignore[arg-type]
        log_level="warning",
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
        ws="none",
    )
    return uvicorn.Server(config)


@contextmanager
def _running(server, listening: socket.socket) -> Iterator[threading.Thread]:  # type: ignore[no-untyped-def]
    """uvicorn in a thread of its own: there it leaves the signals alone, and Ctrl-C reaches the caller."""
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="lisrd-page", daemon=True
    )
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise InputError("the page did not start; the lines above say why")
            time.sleep(0.02)
        yield thread
    finally:
        server.should_exit = True
        thread.join(_GRACE_SECONDS + 5)


def _require_gradio() -> None:
    try:
        # Read when gradio is imported: no telemetry, no check for a newer version.
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        import gradio  # noqa: F401
    except ImportError:
        raise MissingExtraError("web", "lisrd serve") from None


def _listen(place: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        return socket.create_server((place.host, place.port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot listen on {place.host} port {place.port}: {reason}; choose another --host or --port"
        ) from None


@contextmanager
def _uploads() -> Iterator[Path]:
    """A folder of this server alone, for as long as it runs; gradio takes it from the environment."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    folder = Path(tempfile.mkdtemp(prefix="lisrd-page-"))  # readable by this user alone
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


@contextmanager
def _sweeping(folder: Path, limits: Limits) -> Iterator[None]:
    """Behind gradio's own clearing, which leaves folders and the pieces of uploads that were broken off."""
    examples = frozenset(path for path in folder.rglob("*") if path.is_file())
    stop = threading.Event()

    def sweep_on() -> None:
        while not stop.wait(min(60, limits.keep_seconds)):
            sweep(folder, 2 * limits.keep_seconds, examples)

    thread = threading.Thread(target=sweep_on, name="lisrd-sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def sweep(folder: Path, age: float, kept: frozenset[Path] = frozenset()) -> None:
    """Remove the files of `folder` that are older than `age` seconds, but not `kept`, and folders that are empty."""
    oldest = time.time() - age
    for directory, _, names in os.walk(folder, topdown=False):
        for path in (Path(directory, name) for name in names):
            if path not in kept and _is_older(path, oldest):
                path.unlink(missing_ok=True)
        if Path(directory) != folder and _is_older(Path(directory), oldest):
            with suppress(OSError):  # not empty
                os.rmdir(directory)


def _is_older(path: Path, oldest: float) -> bool:
    try:
        return path.stat().st_mtime < oldest
    except OSError:  # gone already
        return False
