"""Before a command has begun: Ctrl-C is quiet while torch is imported, and what needs no torch does not wait for it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest

from conftest import REPOSITORY

#: How the script that pip writes calls the entry point, and `python -m lisrd`; each says when it is about to.
_STARTED_BY = {
    "the script": "from lisrd_command import main; print(flush=True); main()",
    "python -m": "import lisrd, runpy; print(flush=True); runpy.run_module('lisrd', run_name='__main__')",
}
_MOMENTS = int(os.environ.get("LISRD_START_MOMENTS", "4"))


def _start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A command of its own that hears Ctrl-C, also where these tests run in the background, which ignores it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
@pytest.mark.parametrize("started_by", _STARTED_BY)
def test_ctrl_c_while_a_command_starts_is_quiet(started_by: str) -> None:
    """On a fast machine it may come when the command is done: while Python clears away, the system ends it."""
    done = (0, ""), (-signal.SIGINT, "")
    moments = random.Random(0)
    for _ in range(_MOMENTS):
        process = _start(_STARTED_BY[started_by], "info")
        assert process.stdout
        process.stdout.readline()
        try:
            answer, said = process.communicate(timeout=moments.uniform(0, 2))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            answer, said = process.communicate(timeout=60)
        outcome = process.returncode, said
        assert outcome == (130, "stopped\n") or (answer and outcome in done)


def test_a_command_in_the_background_goes_on() -> None:
    """A shell has it ignore Ctrl-C, which is meant for the one before the user."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import lisrd_command; signal.raise_signal(signal.SIGINT)\n"
        "import sys, types; sys.modules['lisrd.cli'] = types.SimpleNamespace(main=lambda: signal.raise_signal(2))\n"
        "lisrd_command.main()"
    )
    process = _start(code)
    assert process.wait(60) == 0


def test_the_version_needs_neither_torch_nor_a_command() -> None:
    code = "import sys, lisrd_command; lisrd_command.main(); sys.exit('torch' in sys.modules)"
    process = _start(code, "--version")
    answer, _ = process.communicate(timeout=60)
    assert (process.returncode, answer) == (0, f"lisrd {version('lisrd')}\n")


def test_the_script_is_the_quiet_entry_point() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert settings["project"]["scripts"] == {"lisrd": "lisrd_command:main"}
    assert "src/lisrd_command.py" in settings["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
