"""The gate before gradio: the routes that the page needs, bodies of the size that they need, nothing else.

Gradio serves far more than one page uses (proxies, other servers' files, recordings, run history, remote calls), and
more with every version. What is not on this list does not exist here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lisrd.web.limits import MEGABYTE, Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_API = "/gradio_api/"
_FILE = _API + "file="
_UPLOAD = _API + "upload"
_PAGES = frozenset(
    {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"}
    | {_API + name for name in ("info", "queue/data", "upload_progress", "startup-events", "theme.css")}
)
_FOLDERS = ("/assets/", "/static/", "/svelte/", _API + "heartbeat/")
_POSTS = frozenset(_API + name for name in ("upload", "queue/join", "cancel", "reset"))
#: What the page posts beside photographs: names and numbers.
_MESSAGE = 64 * 1024
#: The frame around a file in a form.
_FORM = 8 * 1024

#: Everything from this server: no font, script, style or picture of another, and no message to one.
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; frame-ancestors 'self'; "
        b"form-action 'self'; base-uri 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a visitor is told instead of being let in."""

    status: int
    message: str


class Guard:
    """An ASGI application around gradio's, for the uploads in `folder`."""

    def __init__(self, app: Application, folder: Path, limits: Limits) -> None:
        self._app = app
        self._folder = folder.resolve()
        self._limits = limits

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":  # the page has no web sockets
            await send({"type": "websocket.close", "code": 1008})
        elif refusal := self.refusal(scope):
            await _refuse(refusal, send)
        elif scope["method"] == "POST" and unquote(scope["path"]) != _UPLOAD:
            body = await _read(receive)
            if refusal := self.refusal_of_message(body):
                await _refuse(refusal, send)
            else:
                await self._app(scope, _again(body, receive), _with_headers(send))
        else:
            await self._app(scope, receive, _with_headers(send))

    def refusal(self, scope: Message) -> Refusal | None:
        """Why this request does not get through, or None."""
        path = unquote(scope["path"])
        if scope["method"] in ("GET", "HEAD"):
            return None if self._may_read(path) else Refusal(404, "There is no such page.")
        if scope["method"] != "POST" or path not in _POSTS:
            return Refusal(404, "There is no such page.")
        length = _content_length(scope)
        if length is None:
            return Refusal(411, "Say how long the message is.")
        if path != _UPLOAD:
            return Refusal(413, "The message is too long.") if length > _MESSAGE else None
        return self._refusal_of_upload(length)

    def refusal_of_message(self, body: bytes) -> Refusal | None:
        """Why what the page says is not passed on: a file that is no upload, which gradio might copy or fetch."""
        try:
            said = json.loads(body)
            foreign = [path for path in _paths(said) if not self._is_upload(path)]
        except (ValueError, RecursionError):
            return Refusal(400, "The message is not JSON.")
        return Refusal(400, "That is no upload of this page: drop the photograph again.") if foreign else None

    def _is_upload(self, path: Any) -> bool:
        if not isinstance(path, str) or "\0" in path:
            return False
        return Path(path).is_absolute() and Path(path).resolve().is_relative_to(self._folder)

    def _may_read(self, path: str) -> bool:
        if "\0" in path or "\\" in path or ".." in path.split("/"):
            return False
        if path.startswith(_FILE):
            return self._is_upload(path.removeprefix(_FILE))
        return path in _PAGES or path.startswith(_FOLDERS)

    def _refusal_of_upload(self, length: int) -> Refusal | None:
        most = self._limits.upload
        if length > most + _FORM:
            return Refusal(413, f"A photograph may have {most // MEGABYTE} MB; save it smaller.")
        sizes = list(_sizes(self._folder))
        if len(sizes) >= self._limits.files or sum(sizes) + length > self._limits.disk:
            return Refusal(507, "The server's space for uploads is used up; try again in some minutes.")
        return None


def _paths(said: Any) -> Iterator[Any]:
    """What stands under "path" anywhere in a message: gradio's records of files are found by it."""
    if isinstance(said, dict):
        if "path" in said:
            yield said["path"]
        said = list(said.values())
    if isinstance(said, list):
        for one in said:
            yield from _paths(one)


async def _read(receive: Receive) -> bytes:
    """The body; the server holds it to the length that was announced, and that was checked."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Receives the body that was read already, and after it what comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return waiting.pop() if waiting else await receive()

    return receiving


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes of every file under the folder; files may vanish meanwhile."""
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.stat(os.path.join(directory, name)).st_size
            except OSError:
                continue


def _content_length(scope: Message) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = refusal.message.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    # The body that was announced is not read, so the connection cannot serve another request.
    headers += [(b"connection", b"close"), *_HEADERS]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_HEADERS]
        await send(message)

    return sending
