"""Processes that match for the page: a request that takes too long, or too much memory, costs its process its life.

A thread cannot be stopped, so each worker is a process of its own with its models loaded. It keeps nothing of a request
but the models. Where one dies, a new one takes its place and the others go on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal, cast

from lisrd.errors import InputError, MissingExtraError
from lisrd.memory import is_out_of_memory
from lisrd.web.limits import MEGABYTE, Limits
from lisrd.web.request import MatchRequest, Menu

#: Loading torch and the models, on a machine that is busy with the other workers.
_START_SECONDS = 180.0

#: What a worker says: "ready" with its menu, then for each request "answer", "refused" (the visitor's mistake, in
#: words) or "failed" (ours; the traceback is on the server's standard error).
Reply = tuple[Literal["ready", "answer", "refused", "failed"], Any]
#: The exit code of a worker without memory: there may be none left to say so.
_OUT_OF_MEMORY = 77


@dataclass(frozen=True, slots=True)
class Staff:
    """What the workers are made from: offered names with what builds them, see `build_detector`, `build_describer`."""

    detectors: Mapping[str, str]
    describers: Mapping[str, str]
    device: str = "cpu"
    threads: int = 1
    limits: Limits = field(default_factory=Limits)


class Workers:
    """A fixed number of worker processes; `match` may be called from any thread."""

    def __init__(self, staff: Staff, count: int) -> None:
        """Starts the processes and waits for the first.

        Raises:
            InputError: a detector or describer that cannot be built.
        """
        self.staff = staff
        self._all = [_Worker(staff) for _ in range(count)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        try:
            self.menu = _menu_of(self._all[0])
        except BaseException:
            self.close()
            raise
        for worker in reversed(self._all):  # the first is ready, so it is asked first
            self._idle.put(worker)

    def match(self, request: MatchRequest) -> str:
        """The answer's JSON; waits for an idle worker.

        Raises:
            InputError: a photograph that cannot be used, or a match beyond the limits; for the visitor to read.
        """
        worker = self._idle.get()
        try:
            return worker.ask(request)
        finally:
            self._idle.put(worker)

    def processes(self) -> list[int]:
        """The process ids, to watch their memory."""
        return [worker.process.pid for worker in self._all if worker.process.pid]

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        for worker in self._all:
            worker.end()


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, staff: Staff) -> None:
        self._staff = staff
        self._menu: Menu | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # forking a process with torch's threads can hang
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self._staff), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe breaks when the process ends

    def menu(self) -> Menu:
        """What the worker offers, once it is ready."""
        if self._menu is None:
            kind, content = self._receive(_START_SECONDS)
            if kind == "refused":
                raise InputError(content)
            assert kind == "ready", f"worker did not start: {kind}"
            self._menu = cast(Menu, content)
        return self._menu

    def ask(self, request: MatchRequest) -> str:
        limits = self._staff.limits
        kind: str
        content: Any
        try:
            self.menu()  # a worker that has replaced another may still be loading
            self._pipe.send(request)
            kind, content = self._receive(limits.seconds)
        except TimeoutError:
            self._replace()
            raise InputError(
                f"this match took longer than {limits.seconds:g} seconds and was stopped: "
                "use smaller photographs, fewer keypoints, or SIFT"
            ) from None
        except (EOFError, OSError):  # the process ended: out of memory, or a crash in a decoder
            self.process.join(5)
            kind = "memory" if self.process.exitcode == _OUT_OF_MEMORY else "failed"
            content = None
            self._replace()
        if kind == "answer":
            return cast(str, content)
        if kind == "refused":
            raise InputError(content)
        if kind == "memory":
            raise InputError(
                f"this match needs more than the {limits.memory // MEGABYTE} MB that one may take: "
                "use smaller photographs or fewer keypoints"
            )
        raise InputError("the matcher failed on these photographs; the server's log says why. Try others")

    def end(self) -> None:
        self.process.kill()
        self.process.join(5)
        self._pipe.close()

    def _replace(self) -> None:
        self.end()
        self._menu = None
        self._start()

    def _receive(self, seconds: float) -> Reply:
        if not self._pipe.poll(seconds):
            raise TimeoutError
        return cast(Reply, self._pipe.recv())


def _menu_of(first: _Worker) -> Menu:
    try:
        return first.menu()
    except TimeoutError:
        raise InputError(
            f"the models took longer than {_START_SECONDS:g} seconds to load; offer fewer, or use fewer --workers"
        ) from None
    except (EOFError, OSError):
        raise InputError(
            "a worker ended while it loaded the models; what it wrote above says why, and if nothing, memory was "
            "short: use fewer --workers"
        ) from None


def work(pipe: Connection, staff: Staff) -> None:
    """The life of a worker: load, say what there is, answer until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us
    try:
        matcher = _Matcher(staff)
        menu = matcher.menu()
    except (InputError, MissingExtraError) as error:
        pipe.send(("refused", str(error)))
        return
    _limit_memory(staff)
    pipe.send(("ready", menu))
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(matcher.reply(request))
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)


class _Matcher:
    """The models of one worker, built once."""

    def __init__(self, staff: Staff) -> None:
        import torch

        from lisrd.describe.describer import build_describer
        from lisrd.detect import build_detector

        torch.set_num_threads(staff.threads)
        self._limits = staff.limits
        self._detectors = {name: build_detector(source) for name, source in staff.detectors.items()}
        self._describers = {
            name: build_describer(source, staff.device) for name, source in staff.describers.items()
        }

    def menu(self) -> Menu:
        """What was built. Describing once shows the invariances, and no visitor waits for first calls."""
        from lisrd.describe.describer import described_invariances

        found = {name: described_invariances(one) for name, one in self._describers.items()}
        return Menu(tuple(self._detectors), found)

    def reply(self, request: MatchRequest) -> Reply:
        from lisrd.model import LISRD
        from lisrd.web.matching import answer

        try:
            document = answer(
                request,
                lambda detector, describer: LISRD(self._describers[describer], self._detectors[detector]),
                self._limits,
            )
            return "answer", json.dumps(document, separators=(",", ":"), allow_nan=False)
        except InputError as error:
            return "refused", str(error)
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError from None
            traceback.print_exc()
            return "failed", None


def _limit_memory(staff: Staff) -> None:
    """The process may grow by the limit from here; Linux alone can tell how large it is by now."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    if staff.device == "cpu":  # a GPU's driver reserves address space without end
        ceiling = now + staff.limits.memory
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
