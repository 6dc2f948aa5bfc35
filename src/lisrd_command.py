"""The command `lisrd`, as the system starts it: what must not wait for the package, whose import takes two seconds."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.metadata import version
from typing import NoReturn


def main() -> None:
    """The entry point of `lisrd`. Ctrl-C ends it with exit code 130 and no traceback, from here on."""
    if sys.argv[1:] == ["--version"]:
        print(f"lisrd {version('lisrd')}")
        return
    # A shell's background job does not listen.
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:
        signal.signal(signal.SIGINT, _leave)
    from lisrd.cli import main as run

    threading.excepthook = _in_thread
    try:
        if listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:  # a second one, while the first was answered
        _leave()
    finally:
        if listens:  # all is said; what Python still clears away may end at once
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _in_thread(raised: threading.ExceptHookArgs) -> None:
    """A full disk that TensorBoard's thread ran into is raised in the main one as well, which says it in one line."""
    if not isinstance(raised.exc_value, OSError):
        threading.__excepthook__(raised)


def _leave(*_: object) -> NoReturn:
    """At once: an exception would be raised in a half-imported module, and some print it or take it for their own."""
    os.write(sys.stderr.fileno(), b"stopped\n")
    os._exit(130)


if __name__ == "__main__":
    main()
