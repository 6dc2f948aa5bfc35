"""`python -m benchmarks.page_load`: many visitors of the page at a time, each with a pair whose answer is known.

Every visitor has photographs of a size that no other has, turned by an angle that no other has: an answer that went to
the wrong visitor, or was mixed from two, shows. The page runs as `lisrd serve` in a process of its own on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
from PIL import Image

API = "gradio_api/"
#: The corners of a visitor's photograph may be this far off: another visitor's are tens of pixels away.
TOLERANCE = 3.0


@dataclass(frozen=True, slots=True)
class Visitor:
    """A photograph and the same turned by `angle` degrees counter-clockwise around its centre."""

    number: int

    @property
    def size(self) -> tuple[int, int]:
        return 280 + 2 * self.number, 320

    @property
    def affine(self) -> np.ndarray:
        width, height = self.size
        return cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 4.0 + 7.0 * self.number, 1.0)

    def photographs(self) -> tuple[bytes, bytes]:
        """Both as PNG."""
        import skimage.data  # the rest of this file runs where only the page's extra is installed

        first = cv2.resize(skimage.data.astronaut(), self.size, interpolation=cv2.INTER_AREA)
        return _png(first), _png(cv2.warpAffine(first, self.affine, self.size))

    def is_own(self, answer: dict[str, Any]) -> bool:
        """The answer is of this visitor's photographs, and right."""
        width, height = self.size
        sizes = [(one["width"], one["height"]) for one in answer["photographs"]]
        matrix = answer["model"]["matrix"]
        if sizes != [self.size, self.size] or matrix is None:
            return False
        corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
        found = cv2.perspectiveTransform(corners[None], np.array(matrix))[0]
        true = corners @ self.affine[:, :2].T + self.affine[:, 2]
        return float(np.abs(found - true).max()) < TOLERANCE


@dataclass(slots=True)
class Tally:
    """What came of all questions."""

    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    dropped: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        spent = sorted(self.seconds)
        return {
            "answers": len(spent),
            "wrong_or_mixed_up": self.wrong,
            "dropped": len(self.dropped),
            "reasons": sorted(set(self.dropped))[:5],
            "seconds_median": round(median(spent), 2) if spent else None,
            "seconds_worst": round(spent[-1], 2) if spent else None,
        }


class _Answer(HTMLParser):
    """The JSON in the page's element, or the text of its error."""

    text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


async def visit(client: Any, visitor: Visitor, until: float, describer: str, tally: Tally) -> None:
    """Upload, ask, check, and again, until the clock says `until`."""
    photographs = visitor.photographs()
    while time.monotonic() < until:
        begun = time.monotonic()
        try:
            answer = await ask(client, photographs, describer)
        except Exception as error:  # whatever kept the answer from the visitor
            tally.dropped.append(f"{type(error).__name__}: {error}"[:200])
            await asyncio.sleep(0.5)
            continue
        tally.seconds.append(time.monotonic() - begun)
        tally.wrong += not visitor.is_own(answer)


async def ask(client: Any, photographs: tuple[bytes, bytes], describer: str) -> dict[str, Any]:
    """One question as the browser asks it: two uploads, a place in the queue, the stream of events."""
    records = [await upload(client, f"photograph{k}.png", one) for k, one in enumerate(photographs)]
    session = uuid4().hex
    values = [*records, "sift", describer, "soft", "auto", "homography", 512]
    config = (await client.get("config")).json()
    match = next(one["id"] for one in config["dependencies"] if one["api_name"] == "match")
    question = {"data": values, "fn_index": match, "session_hash": session}
    (await client.post(API + "queue/join", json=question)).raise_for_status()
    async with client.stream("GET", API + "queue/data", params={"session_hash": session}) as stream:
        async for line in stream.aiter_lines():
            event = json.loads(line[5:]) if line.startswith("data:") else {}
            if event.get("msg") == "process_completed":
                return answer_in(event)
    raise RuntimeError("the stream ended before the answer")


async def upload(client: Any, name: str, content: bytes) -> dict[str, Any]:
    reply = await client.post(API + "upload", files={"files": (name, content, "image/png")})
    reply.raise_for_status()
    return {"path": reply.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}


def answer_in(event: dict[str, Any]) -> dict[str, Any]:
    """The answer of a completed event; ValueError with the page's words where there is none."""
    if not event.get("success"):
        raise ValueError(str(event.get("output")))
    parser = _Answer()
    parser.feed(event["output"]["data"][0])
    return json.loads(parser.text)


async def crowd(url: str, visitors: int, seconds: float, describer: str) -> Tally:
    """So many visitors for so long, all at once."""
    import httpx

    tally = Tally()
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits, trust_env=False) as client:
        await asyncio.gather(
            *(visit(client, Visitor(k), until, describer, tally) for k in range(visitors)),
        )
    return tally


def resident_megabytes(process: int) -> float:
    """Of a process and all its children; Linux only."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    own = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
    children = [
        int(child)
        for thread in Path(f"/proc/{process}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return own + sum(map(resident_megabytes, children))


@contextmanager
def served(*options: str) -> Iterator[tuple[str, int]]:
    """`lisrd serve` on a free port: its address and its process."""
    command = [sys.executable, "-m", "lisrd", "serve", "--port", "0", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"], process.pid
        finally:
            process.terminate()


def measure(visitors: int, seconds: float, describer: str, workers: int) -> dict[str, Any]:
    """The tally of the crowd, and the server's memory before and after it."""
    with served("--workers", str(workers)) as (url, process):
        # A first crowd of the same size, an answer for each: buffers and threads are made once.
        asyncio.run(crowd(url, visitors, 1.0, describer))
        memory = {"before": resident_megabytes(process)}
        tally = asyncio.run(crowd(url, visitors, seconds, describer))
        memory["after"] = resident_megabytes(process)
    rounded = {name: round(value) for name, value in memory.items()}
    rate = round(len(tally.seconds) / seconds, 2)
    return {
        "visitors": visitors,
        "seconds": seconds,
        "workers": workers,
        **tally.summary(),
        "answers_per_second": rate,
        "megabytes": rounded,
    }


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def main() -> None:
    """The entry point; prints one JSON document."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.page_load", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--describer", default="root-sift")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.visitors, arguments.seconds, arguments.describer, arguments.workers)))


if __name__ == "__main__":
    main()
