"""The answer as the page's own HTML element, which `static/viewer.js` brings to life."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files

_STATIC = files("lisrd.web") / "static"


def answer_element(document: str) -> str:
    """`<lisrd-matches>` around the answer's JSON."""
    data = document.replace("&", "\\u0026").replace(
        "<", "\\u003c"
    )  # JSON's own escapes: no HTML is left in it
    return f"<lisrd-matches><data hidden>{data}</data></lisrd-matches>"


def error_element(message: str) -> str:
    """A message for the visitor, announced to screen readers."""
    sentence = message[:1].upper() + message[1:]
    return f'<div class="lisrd-error" role="alert"><strong>No match.</strong> {escape(sentence)}.</div>'


def head() -> str:
    """The viewer's script and style, inline: the page asks no other address for anything."""
    style = json.dumps(static_text("viewer.css")).replace("<", "\\u003c")
    return f"<script>globalThis.lisrdViewerStyle = {style};\n{static_text('viewer.js')}</script>"


def static_text(name: str) -> str:
    """A file of `static/`."""
    return (_STATIC / name).read_text(encoding="utf-8")
