"""`lisrd info` and `lisrd convert`."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import lisrd
from lisrd.cli.console import JsonOption, answer

_PACKAGES = ("torch", "numpy", "opencv-python-headless", "kornia", "safetensors", "h5py")
_EXTRAS = {
    "train": "lightning-fabric",
    "sfm": "pycolmap",
    "poselib": "poselib",
    "fast": "numba",
    "onnx": "onnxruntime",
    "ray": "ray",
    "web": "gradio",
}


def info(json: JsonOption = False) -> None:
    """Versions, devices, weights, and what is accelerated: the text for a bug report."""
    from lisrd.describe.norm_passes import norm_pass
    from lisrd.describe.precision import choose_precision
    from lisrd.describe.weights import bundled_names
    from lisrd.match.passes import choose_pass
    from lisrd.verify.lucas_kanade import refining_pass

    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision, reason = choose_precision("auto", device)
    matching_pass, pass_reason = choose_pass(device)
    training_pass, training_reason = norm_pass(device)
    refining, refining_reason = refining_pass()
    document: dict[str, Any] = {
        "lisrd": lisrd.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "extras": {extra: _version(name) for extra, name in _EXTRAS.items()},
        "devices": [
            "cpu",
            *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())),
        ],
        "threads": torch.get_num_threads(),
        "precision": {"auto": str(precision).removeprefix("torch."), "reason": reason},
        "matching": {"pass": matching_pass, "reason": pass_reason},
        "refining": {"pass": refining, "reason": refining_reason},
        "training": {"pass": training_pass, "reason": training_reason},
        "weights": bundled_names(),
    }
    answer(document, json, _as_text(document))


def convert(
    source: Annotated[Path, typer.Argument(help="A published .pth checkpoint.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    json: JsonOption = False,
) -> None:
    """Read a published checkpoint of the paper's network and write it as safetensors."""
    from lisrd.describe.weights import convert as convert_checkpoint

    convert_checkpoint(source, output)
    answer({"input": str(source), "output": str(output)}, json, f"wrote {output}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _as_text(document: dict[str, Any], indent: str = "") -> str:
    lines = []
    for name, value in document.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", _as_text(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name}: {'not installed' if shown is None else shown}")
    return "\n".join(lines)
