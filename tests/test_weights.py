"""Weights on disk: what goes in comes out, and what does not belong is refused with a reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lisrd import tensor_files
from lisrd.describe import weights
from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.describe.paper import PaperConfig, PaperNetwork
from lisrd.describe.selector import Selector, SelectorConfig
from lisrd.describe.weights import (
    convert,
    fingerprint,
    from_published,
    load_network,
    load_strictly,
    published_names,
    read_metadata,
    save_weights,
)
from lisrd.errors import InputError
from published import published_state, seeded_weights

SMALL = PyramidConfig(widths=(2, 2, 4, 4, 4), trunk_width=4, head_width=8, descriptor_dim=8, num_clusters=2)
SMALL_PAPER = PaperConfig(widths=(4, 4, 8, 8), descriptor_dim=8, num_clusters=2, compat="reference")
SMALL_SELECTOR = SelectorConfig(
    ("root-sift", "upright-root-sift"), ("rot_invar", "rot_var"), descriptor_dim=8
)


@pytest.fixture
def network() -> PyramidNetwork:
    torch.manual_seed(0)
    return PyramidNetwork(SMALL)


@pytest.fixture
def saved(network: PyramidNetwork, tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    save_weights(path, network, {"recipe": "none", "steps": 3})
    return path


def same(state0: dict[str, Tensor], state1: dict[str, Tensor]) -> bool:
    return state0.keys() == state1.keys() and all(torch.equal(state0[k], state1[k]) for k in state0)


# What goes in comes out.


@pytest.mark.parametrize(
    "make",
    [lambda: PyramidNetwork(SMALL), lambda: PaperNetwork(SMALL_PAPER), lambda: Selector(SMALL_SELECTOR)],
)
def test_round_trip(make: type[nn.Module], tmp_path: Path) -> None:
    network = make()
    save_weights(tmp_path / "w.safetensors", network, {})
    loaded = load_network(tmp_path / "w.safetensors")
    assert type(loaded) is type(network)
    assert loaded.config == network.config
    assert not loaded.training
    assert same(loaded.state_dict(), network.state_dict())
    assert os.listdir(tmp_path) == ["w.safetensors"]  # no partial file is left


def test_metadata_says_what_the_file_is(saved: Path) -> None:
    described = read_metadata(saved)
    assert described["kind"] == "pyramid"
    assert described["config"]["widths"] == (2, 2, 4, 4, 4)
    assert described["provenance"] == {"recipe": "none", "steps": 3}


def test_half_precision_keeps_batch_statistics(network: PyramidNetwork, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    norm = network.encoder.levels[0].down.norm.norm
    norm.running_var.fill_(1e-9)  # 0 in float16
    save_weights(path, network, {}, half=True)
    stored = load_file(path)
    assert stored["heads.0.out.weight"].dtype == torch.float16
    loaded = load_network(path)
    assert torch.equal(loaded.encoder.levels[0].down.norm.norm.running_var, norm.running_var)
    assert loaded.heads[0].out.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.heads[0].out.weight, network.heads[0].out.weight, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("value", "half"), [(float("nan"), False), (1e6, True)])
def test_numbers_that_do_not_fit_are_not_written(
    network: PyramidNetwork, tmp_path: Path, value: float, half: bool
) -> None:
    network.heads[1].out.bias.data[0] = value
    with pytest.raises(InputError, match=r"heads\.1\.out\.bias is not finite in torch\.float\d+"):
        save_weights(tmp_path / "bad.safetensors", network, {}, half)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full_disk(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(before[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(tensor_files, "save_file", full_disk)
    with pytest.raises(InputError, match="No space left"):
        save_weights(saved, PyramidNetwork(SMALL), {})
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_fingerprint_is_that_of_the_content(saved: Path, network: PyramidNetwork, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(saved.read_bytes())
    assert fingerprint(copy) == fingerprint(saved)
    network.meta.bias.data[0] = 1.0
    save_weights(copy, network, {"recipe": "none", "steps": 3})
    assert fingerprint(copy) != fingerprint(saved)


# What does not belong is refused.


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_network(path)
    for word in (path.name, *words):
        assert word in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "does not exist")
    (tmp_path / "folder.safetensors").mkdir()
    refused(tmp_path / "folder.safetensors", "is a folder")


@pytest.mark.parametrize("kept", [0, 5, 300, 0.5, 0.999])
def test_truncated_file(saved: Path, kept: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    refused(saved, "damaged", "download, convert or export it again")


def test_text_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_text("these are not the weights you are looking for\n" * 20)
    refused(path, "is no safetensors file")


def test_torch_file_is_pointed_to_the_converter(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    refused(path, "lisrd convert IN.pth -o OUT.safetensors")


def test_other_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    refused(path, "does not hold weights of this package", "no format at all")


def rewritten(path: Path, header: dict[str, str], drop: tuple[str, ...] = (), **tensors: Tensor) -> None:
    """The file again with other metadata, without some tensors, with others in addition."""
    with safe_open(path, framework="pt") as file:
        old = file.metadata()
    state = {name: value for name, value in load_file(path).items() if name not in drop}
    save_file(state | tensors, path, old | header)


def test_missing_parameters_are_named(saved: Path) -> None:
    rewritten(saved, {}, drop=("heads.0.out.bias", "meta.bias"))
    refused(saved, "misses heads.0.out.bias, meta.bias", "PyramidNetwork")


def test_unknown_parameters_are_named(saved: Path) -> None:
    rewritten(saved, {}, **{f"extra.{i}": torch.zeros(1) for i in range(5)})
    refused(saved, "has unknown extra.0, extra.1, extra.2 and 2 more")


def test_shapes_are_named(saved: Path) -> None:
    rewritten(saved, {}, **{"heads.0.out.bias": torch.zeros(9)})
    refused(saved, "has other shapes for heads.0.out.bias ((9,) instead of (8,))")


def test_other_architecture(saved: Path) -> None:
    config = json.dumps({"widths": [4, 4, 8, 8], "descriptor_dim": 8, "num_clusters": 2})
    rewritten(saved, {"kind": "paper", "config": config})
    refused(saved, "misses encoder.groups.0.0.conv.bias", "not weights of PaperNetwork")


def test_unknown_kind(saved: Path) -> None:
    rewritten(saved, {"kind": "transformer"})
    refused(saved, "a 'transformer' network", "knows pyramid, paper, selector", "upgrade lisrd")


@pytest.mark.parametrize("config", ['{"depth": 3}', '{"turns": 3}', "[]", "{"])
def test_unusable_configuration(saved: Path, config: str) -> None:
    rewritten(saved, {"config": config})
    refused(saved, "its configuration does not fit", "export the weights again")


# Bundled weights.


@pytest.fixture
def bundle(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that comes with the weights "small"."""
    (tmp_path / "SHA256SUMS").write_text(f"{fingerprint(saved)}  {saved.name}\n")
    monkeypatch.setattr(weights, "_BUNDLED", tmp_path)
    return tmp_path


def test_bundled_weights_load_by_name(bundle: Path) -> None:
    assert weights.bundled_names() == ["small"]
    assert load_network("small").config == SMALL
    assert fingerprint("small") == fingerprint(bundle / "small.safetensors")


def test_changed_bundled_weights_are_refused(bundle: Path) -> None:
    content = bytearray((bundle / "small.safetensors").read_bytes())
    content[-1] ^= 1
    (bundle / "small.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="missing or changed: install lisrd again"):
        load_network("small")


def test_unknown_name_lists_what_there_is(bundle: Path) -> None:
    with pytest.raises(InputError, match=r"no weights 'large' come with this package \(it has: small\)"):
        load_network("large")


def test_every_weight_that_is_shipped_loads() -> None:
    for name in weights.bundled_names():
        assert isinstance(load_network(name), nn.Module)


# Published checkpoints.


def published_from_names() -> dict[str, Tensor]:
    """A published state dict made from our own network, so that it needs no golden file."""
    ours = PaperNetwork().state_dict()
    shapes = {
        theirs: (*ours[name].shape, 1, 1) if name.endswith("assign.weight") else tuple(ours[name].shape)
        for theirs, name in published_names().items()
    }
    return seeded_weights(list(shapes), list(shapes.values()), seed=0)


def test_the_names_are_the_published_ones(golden: dict) -> None:
    assert sorted(published_names()) == golden["state_keys"].tolist()
    assert len(set(published_names().values())) == 104
    theirs, ours = published_state(golden), published_from_names()
    assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}


def test_names_by_hand() -> None:
    names = published_names()
    assert names["_backbone._conv3_2.weight"] == "encoder.groups.2.1.conv.weight"
    assert names["bn_illum_var_rot_invar_1.running_mean"] == "heads.1.hidden.norm.running_mean"
    assert names["conv_illum_invar_rot_var_2.bias"] == "heads.2.out.bias"
    assert names["vlad_rot_invar_illum_invar.centroids"] == "meta.vlads.3.centroids"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_convert(tmp_path: Path, prefix: str, wrapped: bool) -> None:
    state = published_from_names()
    content = {prefix + name: value for name, value in state.items()}
    if wrapped:
        optimiser = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}
        content = {"model_state_dict": content, "optimizer_state_dict": optimiser, "iter": 100, "config": {}}
    torch.save(content, tmp_path / "vidit.pth")
    convert(tmp_path / "vidit.pth", tmp_path / "vidit.safetensors")
    network = load_network(tmp_path / "vidit.safetensors")
    assert isinstance(network, PaperNetwork)
    assert network.config == PaperConfig(compat="reference")
    assert network.selection.temperature == 1.0
    loaded = network.state_dict()
    assert len(loaded) == 106
    for name, value in from_published(state, "").items():
        assert torch.equal(loaded[name], value), name
    assert read_metadata(tmp_path / "vidit.safetensors")["provenance"]["converted_from"] == "vidit.pth"


def test_convert_to_our_convention(tmp_path: Path) -> None:
    torch.save(published_from_names(), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out.safetensors", compat="none", half=True)
    assert load_network(tmp_path / "out.safetensors").config.compat == "none"
    assert (tmp_path / "out.safetensors").stat().st_size < 0.6 * (tmp_path / "in.pth").stat().st_size


class RunsCode:
    """What a malicious checkpoint would hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["LISRD_TEST_MARK"],)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.setenv("LISRD_TEST_MARK", str(tmp_path / "ran"))
    torch.save({"model_state_dict": RunsCode()}, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"evil\.pth.*refused, because loading such objects can run code"):
        convert(tmp_path / "evil.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out.safetensors").exists()


def not_converted(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(path, path.with_name("out.safetensors"))


def test_convert_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "in.pth"
    not_converted(path, "does not exist")
    path.write_text("hello")
    not_converted(path, "is no checkpoint of torch.save")
    torch.save([torch.zeros(1)], path)
    not_converted(path, "holds a list; a dictionary of parameters is needed")
    torch.save({"model_state_dict": [1, 2]}, path)
    not_converted(path, "holds no parameters by name")
    torch.save(published_from_names(), path)
    path.write_bytes(path.read_bytes()[:10_000])
    not_converted(path, "is damaged")


def test_convert_names_what_is_missing_or_unknown(tmp_path: Path) -> None:
    path = tmp_path / "in.pth"
    state = published_from_names()
    del state["_backbone._conv1_1.weight"]
    torch.save(state | {"detector.weight": torch.zeros(1)}, path)
    not_converted(
        path, r"misses _backbone\._conv1_1\.weight; has unknown detector\.weight: this is no checkpoint"
    )
    state = published_from_names()
    state["_backbone._bn1_1.bias"] = torch.zeros(32)
    torch.save(state, path)
    not_converted(path, r"encoder\.groups\.0\.0\.norm\.bias \(\(32,\) instead of \(64,\)\)")


def test_load_strictly_changes_nothing_when_it_refuses(network: PyramidNetwork) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError):
        load_strictly(network, {"heads.0.out.bias": torch.zeros(8)}, "here")
    assert same(before, network.state_dict())
