"""Fuzz the readers: `python tests/fuzz/run.py [--seconds 60] [--reader NAME]`, or `make fuzz SECONDS=60`.

Each reader runs in a process of its own, so that one that crashes the interpreter is a finding like any other. With
atheris mutation follows the coverage of Python code; without it (there is none for some Pythons) it is blind. An input
that found something is kept in `tests/fuzz/corpus/READER`, where the tests read it ever after.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"

#: What coverage guides: our code and the Python parts of what it reads with.
_INSTRUMENTED = ["lisrd", "PIL", "tomllib", "zipfile", "safetensors"]
_SLOWEST = 20  # seconds that one small file may take
_MOST_MEMORY = 4096  # MB
_LONGEST = 32_768  # bytes; the largest seed, of HDF5, has half of it


def main() -> None:
    """Exit code 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all readers together")
    parser.add_argument("--reader", help="this one alone")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed repeats a search; 0 is another each time"
    )
    options = parser.parse_args()
    readers = _readers()
    names = [options.reader] if options.reader else list(readers)
    seconds = options.seconds / len(names)
    findings = [found for name in names for found in _fuzz(name, readers[name], seconds, options.seed)]
    print(f"{len(findings)} findings in {len(names)} readers", *findings, sep="\n")
    sys.exit(1 if findings else 0)


def _readers() -> dict[str, Any]:
    """The readers, their modules instrumented where atheris is installed."""
    import torch  # first: its thousands of modules are not instrumented

    torch.set_num_threads(1)  # threads do not survive the fork
    try:
        import atheris
    except ImportError:
        import readers
    else:
        with atheris.instrument_imports(include=_INSTRUMENTED):
            import readers
    import lisrd.image

    lisrd.image.MAX_PIXELS = 4_000_000  # decoding what is legal but large finds nothing else
    warnings.simplefilter("ignore")
    return readers.READERS


def _fuzz(name: str, reader: Any, seconds: float, seed: int) -> list[Path]:
    """The inputs that the reader did not survive."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
        work = Path(folder)
        for name_of_file in ("found", "last"):
            (work / name_of_file).touch()
        child = os.fork()
        if not child:
            _in_child(name, reader, seconds, seed, work)
        _, status = os.waitpid(child, 0)
        told = (work / "told").read_text(errors="replace")
        counted = [line for line in told.splitlines() if "Done " in line or "tried" in line]
        print(f"{name}: {counted[-1].strip() if counted else 'ended early'}", flush=True)
        if status and reader.in_hdf5:
            print(f"{name}: HDF5 itself hung or crashed; see docs/reliability.md", flush=True)
        elif status:
            _keep(name, (work / "last").read_bytes(), told[-2000:], work)
        return [Path(line) for line in (work / "found").read_text().splitlines()]


def _in_child(name: str, reader: Any, seconds: float, seed: int, work: Path) -> None:
    with (work / "told").open("w") as told:
        os.dup2(told.fileno(), sys.stderr.fileno())
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    mutate = _follow_coverage if "atheris" in sys.modules else _mutate_blindly
    try:
        seeds = reader.seeds()
        assert all(reader.accepts(content, work / "valid") for content in seeds), "a seed is not valid"
        mutate(_checker(name, reader, work), [*seeds, *kept], seconds, seed, work)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _checker(name: str, reader: Any, work: Path) -> Callable[[bytes], None]:
    """Read these bytes; a failure of Python's is kept, and the next one looked for."""
    folder, last, seen = work / "folder", work / "last", set()
    folder.mkdir()

    def check(content: bytes) -> None:
        last.write_bytes(content)
        try:
            reader.accepts(content, folder)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            found = (type(error), frame.filename, frame.lineno)
            if found not in seen:
                seen.add(found)
                _keep(name, content, traceback.format_exc(limit=-6), work)

    return check


def _keep(name: str, content: bytes, why: str, work: Path) -> None:
    path = CORPUS / name / hashlib.sha256(content).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with (work / "found").open("a") as found:
        print(path, file=found)
    print(f"--- {path}\n{why}", flush=True)


def _follow_coverage(
    check: Callable[[bytes], None], contents: list[bytes], seconds: float, seed: int, work: Path
) -> None:
    import atheris

    corpus = work / "corpus"
    corpus.mkdir()
    for number, content in enumerate(contents):
        (corpus / str(number)).write_bytes(content)
    limits = [f"-timeout={_SLOWEST}", f"-rss_limit_mb={_MOST_MEMORY}", f"-max_len={_LONGEST}"]
    run = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-seed={seed}",
        f"-artifact_prefix={work}/",
        "-verbosity=1",
    ]
    atheris.Setup([sys.argv[0], str(corpus), *limits, *run], check)
    with contextlib.suppress(SystemExit):
        atheris.Fuzz()


def _mutate_blindly(
    check: Callable[[bytes], None], contents: list[bytes], seconds: float, seed: int, work: Path
) -> None:
    rng = random.Random(seed or os.getpid())
    end, tried = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        faulthandler.dump_traceback_later(_SLOWEST, exit=True)
        check(mutated(rng.choice(contents), rng))
        tried += 1
    faulthandler.cancel_dump_traceback_later()
    print(f"{tried} tried, without coverage", file=sys.stderr)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut out, repeated, or the end cut off."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0 if at < len(changed):
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 1:
                del changed[at : at + rng.randrange(1, 9)]
            case 2:
                changed[at:at] = changed[at : at + rng.randrange(1, 65)]
            case 3 if rng.random() < 0.1:
                del changed[at:]
    return bytes(changed)


if __name__ == "__main__":
    main()
