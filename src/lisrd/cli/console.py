"""The manners of every command: one JSON document on standard output, words on standard error, exit codes."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.exceptions import TyperException

from lisrd.errors import InputError, MissingExtraError

DONE, BAD_INPUT, SOME_BROKEN, INTERRUPTED = 0, 2, 3, 130

words = Console(stderr=True, highlight=False, soft_wrap=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def answer(document: dict[str, Any], as_json: bool, text: str = "") -> None:
    """The command's answer: the document for machines, or the text for people, on standard output."""
    print(json.dumps(document, default=_plain) if as_json else text)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def run(app: typer.Typer) -> None:
    """Run the application; mistakes of the user are one line and exit code 2, never a traceback."""
    try:
        code = app(standalone_mode=False)  # typer answers Ctrl-C by its exit code
    except (InputError, MissingExtraError) as error:
        code = _complain(str(error))
    except TyperException as error:
        code = _complain(f"{getattr(error, 'format_message', error.__str__)()} (see --help)")
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        code = DONE
    except OSError as error:  # a full disk, a file that vanished: the system's words are the reason
        code = _complain(str(error))
    if code == INTERRUPTED:
        words.print("stopped")
    sys.exit(code or DONE)


def _complain(message: str) -> int:
    one_line = " ".join(message.split())
    words.print(f"lisrd: {one_line}", markup=False)
    return BAD_INPUT
