"""`lisrd serve`: the page for two photographs, on this machine or for a group."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from lisrd.cli.console import DONE, JsonOption, answer, words
from lisrd.cli.pair import DeviceOption
from lisrd.describe.describer import split_path
from lisrd.describe.octaves import split_octaves
from lisrd.errors import InputError
from lisrd.web.limits import MEGABYTE, Limits


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    workers: Annotated[int | None, typer.Option(min=1, help="Matches at a time; half the cores.")] = None,
    describer: Annotated[list[str], typer.Option(help="What the page offers; may be repeated.")] = [  # noqa: B006
        "pyramid",
        "lisrd-sift",
        "root-sift",
        "upright-root-sift",
    ],
    detector: Annotated[list[str], typer.Option(help="What the page offers; may be repeated.")] = [  # noqa: B006
        "sift",
        "dog",
    ],
    max_side: Annotated[int, typer.Option(min=64, help="Longer sides are matched in a smaller copy.")] = 1600,
    max_keypoints: Annotated[int, typer.Option(min=64, help="Keypoints of a photograph, at most.")] = 4096,
    max_upload: Annotated[int, typer.Option(min=1, help="Megabytes of a photograph, at most.")] = 20,
    seconds: Annotated[float, typer.Option(min=1, help="A match that takes longer is stopped.")] = 60.0,
    queue: Annotated[int, typer.Option(min=1, help="Matches that may wait.")] = 64,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Serve the page: drop two photographs, see which invariance matched what."""
    from lisrd.web.server import Place, serving
    from lisrd.web.workers import Staff

    limits = Limits(
        upload=max_upload * MEGABYTE,
        max_side=max_side,
        max_keypoints=max_keypoints,
        seconds=seconds,
        queue=queue,
    )
    cores = os.cpu_count() or 1
    count = workers or max(1, cores // 2)
    staff = Staff(
        _offered(detector, [source.partition("=")[0] for source in detector]),
        _offered(describer, [_label(source) for source in describer]),
        device,
        max(1, cores // count),
        limits,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(DONE))  # a service manager's way to say Ctrl-C
    words.print("loading the models ...")
    with serving(staff, count, Place(host, port)) as page:
        answer({"url": page.url, "workers": count}, json, f"{page.url}  (Ctrl-C ends it)")
        sys.stdout.flush()  # whoever started us through a pipe waits for the address
        page.wait()


def _offered(sources: list[str], labels: list[str]) -> dict[str, str]:
    """Names without the paths behind them: those are the server's own business."""
    offered = dict(zip(labels, sources, strict=True))
    if len(offered) < len(sources):
        raise InputError("a describer or detector is offered twice; name each once")
    return offered


def _label(describer: str) -> str:
    """Its name, a file's without folders; sizes stay behind it."""
    whole, _ = split_octaves(describer)
    name, _ = split_path(whole)
    return Path(name).name.removesuffix(".safetensors") + describer.removeprefix(whole)
