"""What a describer's name, device and precision may be."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lisrd.describe import build_describer
from lisrd.describe.describer import DescriberOnDevice, described_invariances
from lisrd.errors import InputError
from lisrd.evaluate.identity import describer_digest
from lisrd.types import Keypoints
from small_describer import SmallDescriber

WEIGHTS = Path(str(files("lisrd"))) / "weights"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("paper=/none.safetensors", {}, "give the file itself: --describer /none.safetensors"),
        ("pyramid=mine.safetensors@2", {}, "pyramid takes no path"),
        ("root-sift=mine.pth", {}, "root-sift takes no path"),
        ("lr=3e-4/none.safetensors", {}, "lr=3e-4/none.safetensors does not exist"),
        (str(WEIGHTS / "lisrd-sift.safetensors"), {}, "the selection of a bank.* lisrd-sift=/"),
        ("lisrd-sift=none.safetensors", {}, "none.safetensors does not exist"),
        ("lisrd-sift=pyramid", {}, "the selection of a bank is needed"),
        ("lisrd-aliked=one", {}, "needs two files"),
        ("lisrd-aliked=1,2,3,4", {}, "needs two files"),
        ("pyramid", {"device": "foo"}, r"device 'foo' cannot be used \(.*\); `lisrd info`"),
        ("root-sift", {"device": "foo"}, "device 'foo' cannot be used"),
        ("root-sift@2", {"device": "meta"}, "device 'meta' cannot be used"),
        ("pyramid", {"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ("lisrd-sift", {"precision": "bfloat16"}, "lisrd-sift computes in float32"),
        ("root-sift", {"precision": "float16"}, "use 'auto', 'float32' or 'bfloat16'"),
    ],
)
def test_what_cannot_be_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_describer(name, **options)


def test_a_file_is_a_name_whatever_is_in_its_path(tmp_path: Path) -> None:
    path = tmp_path / "lr=3e-4" / "m.safetensors"
    path.parent.mkdir()
    shutil.copyfile(WEIGHTS / "pyramid-small.safetensors", path)
    found, bundled = build_describer(str(path)).config, build_describer("pyramid-small").config
    assert found == {**bundled, "describer": str(path)}
    assert describer_digest(str(path)) != describer_digest("pyramid-small")


def test_a_third_file_is_the_selection_of_aliked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lisrd.describe.aliked.lisrd_aliked", lambda *paths: paths)
    assert build_describer("lisrd-aliked=a,b") == ("a", "b")
    assert build_describer("lisrd-aliked=a,b,c") == ("a", "b", "c")


class Placed:
    """Remembers where its input was."""

    name = "placed"
    config: dict[str, Any] = {}  # noqa: RUF012

    def describe(self, images: Tensor, keypoints: Keypoints, keep_turns: bool = True) -> Any:
        return images.device.type, keypoints.xy.device.type


def test_every_describer_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = torch.device("meta")  # a device of every machine, where nothing can be computed
    given = torch.zeros(1, 3, 64, 64), Keypoints.from_xy(torch.zeros(1, 2))
    assert DescriberOnDevice(Placed(), elsewhere).describe(*given) == ("meta", "meta")
    monkeypatch.setattr("lisrd.describe.describer.checked_device", torch.device)
    for name in ("root-sift", "lisrd-sift"):
        built: Any = build_describer(name, elsewhere)
        assert (built.name, built.device) == (name, elsewhere)
        assert built.config == build_describer(name).config


def test_invariances_are_those_of_the_features() -> None:
    assert described_invariances(SmallDescriber()) == ("oriented", "upright")
    assert described_invariances(build_describer("root-sift@2")) == ("root-sift",)
