"""The ONNX files give what torch gives, for every size and number of keypoints, and are used without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lisrd import LISRD
from lisrd.adapters.onnx import ExportedFiles, export, export_onnx
from lisrd.adapters.onnx.describer import DescriberGraph
from lisrd.adapters.onnx.matcher import MatcherGraph, mutual_pairs
from lisrd.adapters.onnx.program import export_graph
from lisrd.coordinates import turn_points
from lisrd.describe.describer import NetworkDescriber
from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.describe.paper import PaperConfig, PaperNetwork
from lisrd.describe.weights import fingerprint, save_weights
from lisrd.errors import InputError
from lisrd.match import match
from lisrd.types import Keypoints, LocalFeatures, Matches

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "onnx_match.py"

#: (height, width) and keypoints: multiples of 32 and not, odd paddings, one keypoint, none.
SIZES = [((96, 128), 30), ((75, 101), 1), ((33, 160), 0), ((240, 321), 200)]


def small_network() -> PyramidNetwork:
    torch.manual_seed(0)
    sizes = PyramidConfig(widths=(4, 8, 8), trunk_width=16, head_width=32, descriptor_dim=16, num_clusters=4)
    return PyramidNetwork(sizes).eval()


def image_and_keypoints(size: tuple[int, int], count: int) -> tuple[torch.Tensor, Keypoints]:
    random = torch.Generator().manual_seed(count)
    height, width = size
    xy = torch.rand((1, count, 2), generator=random) * torch.tensor([width - 1.0, height - 1.0])
    scores = torch.rand((1, count), generator=random)
    return torch.rand((1, 3, height, width), generator=random), Keypoints(xy, scores, scores >= 0)


def turned_pair(describer: Any, turn: int, count: int, fewer: int = 0) -> tuple[LocalFeatures, LocalFeatures]:
    """Features of an image and of the image turned by quarter turns, with `fewer` keypoints."""
    image, keypoints = image_and_keypoints((64, 96), count)
    kept = count - fewer
    xy = turn_points(keypoints.xy, 96, 64, -turn)[:, :kept]
    turned = Keypoints(xy, keypoints.scores[:, :kept], keypoints.mask[:, :kept])
    return describer.describe(image, keypoints), describer.describe(image.rot90(-turn, (2, 3)), turned)


def inputs_of(graph: MatcherGraph, features0: LocalFeatures, features1: LocalFeatures) -> list[torch.Tensor]:
    return [getattr((features0, features1)[int(name[-1])], name[:-1]) for name in graph.inputs]


def assert_same(found: Sequence[Any], expected: Matches) -> None:
    pairs, scores, weights, turn = (np.asarray(value) for value in found)
    assert pairs.tolist() == expected.matches.tolist()
    assert float(turn) == expected.turn
    np.testing.assert_allclose(scores, expected.scores.numpy(), atol=1e-4)
    np.testing.assert_allclose(weights, expected.invariance_weights.numpy(), atol=1e-4)


def assert_nearly_the_same(found: Sequence[Any], expected: Matches) -> None:
    """Of a random network's thousand descriptors some are so alike that the last bit chooses the nearest."""
    pairs, scores, weights, turn = (np.asarray(value) for value in found)
    assert float(turn) == expected.turn
    ours = {pair: i for i, pair in enumerate(map(tuple, pairs.tolist()))}
    theirs = {pair: i for i, pair in enumerate(map(tuple, expected.matches.tolist()))}
    both = sorted(ours.keys() & theirs.keys())
    assert len(both) > 0.98 * max(len(ours), len(theirs))
    here, there = [ours[pair] for pair in both], [theirs[pair] for pair in both]
    np.testing.assert_allclose(scores[here], expected.scores.numpy()[there], atol=1e-4)
    np.testing.assert_allclose(weights[here], expected.invariance_weights.numpy()[there], atol=1e-4)


def test_mutual_pairs_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.1], [0.8, -0.5], [-0.2, -0.1]])
    assert mutual_pairs(similarity).tolist() == [
        [0, 0]
    ]  # keypoint 1 of image 1 is nearest to 0, which has a better
    assert mutual_pairs(similarity[1:]).tolist() == [[0, 0], [1, 1]]
    for empty in (similarity[:0], similarity[:, :0], similarity[:0, :0]):
        assert mutual_pairs(empty).shape == (0, 2)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize("turns", [4, 8])
def test_matcher_chooses_turn_and_matches_like_match(turn: int, turns: int) -> None:
    network = PyramidNetwork(replace(small_network().config, turns=turns))
    describer = NetworkDescriber("small", network, "", precision="float32")
    features0, features1 = turned_pair(describer, turn, 60, fewer=13)
    expected = match(features0, features1)
    assert (expected.turn, len(expected)) == (turn, 47)
    graph = MatcherGraph(features0.selection)
    assert_same(graph(*inputs_of(graph, features0, features1)), expected)


@pytest.mark.parametrize(("count0", "count1"), [(0, 3), (3, 0), (0, 0), (1, 1), (1300, 1100)])
@pytest.mark.parametrize("power", [0.0, 16.0])
def test_matcher_for_any_number_of_keypoints(count0: int, count1: int, power: float) -> None:
    """More than vote, fewer, and none; with and without the evidence of the pair."""
    describer = NetworkDescriber("small", small_network(), "", precision="float32")
    both = []
    for count, size in ((count0, (64, 96)), (count1, (64, 64))):
        features = describer.describe(*image_and_keypoints(size, count))
        selection = replace(features.selection, agreement_power=power, bias=(0.1, 0.0, -0.2, 0.3))
        both.append(replace(features, selection=selection))
    graph = MatcherGraph(both[0].selection)
    check = assert_same if count0 < 100 else assert_nearly_the_same
    check(graph(*inputs_of(graph, *both)), match(*both))


@pytest.mark.parametrize(("size", "count"), SIZES)
def test_describer_gives_the_features_of_describe(size: tuple[int, int], count: int) -> None:
    image, keypoints = image_and_keypoints(size, count)
    expected = NetworkDescriber("small", small_network(), "", precision="float32").describe(image, keypoints)
    graph = DescriberGraph(small_network())
    for name, value in zip(graph.outputs, graph(image, keypoints.xy), strict=True):
        torch.testing.assert_close(value, getattr(expected, name), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["lisrd-sift", "root-sift", "lisrd-aliked=a.pth,b.pth", "pyramit"])
def test_what_is_no_network_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=name.partition("=")[0]):
        export_onnx(name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_failed_export_says_why() -> None:
    pytest.importorskip("onnxscript")

    class Asks(torch.nn.Module):
        inputs, outputs = ("keypoints",), ("count",)

        def forward(self, keypoints: torch.Tensor) -> torch.Tensor:
            raise ValueError("no word for this")

    with pytest.raises(InputError, match="cannot export the thing: ValueError: no word for this"):
        export_graph(Asks(), [torch.rand(1, 4, 2)], "the thing")


def test_file_that_differs_from_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a translation that is off by 2e-4 nothing is written."""
    weights = tmp_path / "small.safetensors"
    save_weights(weights, small_network(), {})
    monkeypatch.setattr(export, "export_graph", lambda graph, example, what: graph)
    monkeypatch.setattr(
        export, "run", lambda graph, inputs, tensors: [value.numpy() + 2e-4 for value in graph(*tensors)]
    )
    with pytest.raises(InputError, match=r"the describer of .*its image_size differ from torch's by 0\.0002"):
        export_onnx(str(weights), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def pyramid_files(tmp_path_factory: pytest.TempPathFactory) -> ExportedFiles:
    """The bundled network, by the command line."""
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("onnx") / "new" / "folder"
    command = [sys.executable, "-m", "lisrd", "export-onnx", "-o", str(out), "--json"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert sorted(path.name for path in out.iterdir()) == ["describer.onnx", "matcher.onnx"]
    assert answer["largest_difference"] < 1e-4
    return ExportedFiles(Path(answer["describer"]), Path(answer["matcher"]), answer["largest_difference"])


def check_describer(path: Path, describer: NetworkDescriber) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    for size, count in SIZES:
        image, keypoints = image_and_keypoints(size, count)
        expected = describer.describe(image, keypoints)
        found = session.run(None, {"images": image.numpy(), "keypoints": keypoints.xy.numpy()})
        for name, value in zip(names, found, strict=True):
            np.testing.assert_allclose(value, getattr(expected, name).numpy(), atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_describer_file(pyramid_files: ExportedFiles) -> None:
    check_describer(pyramid_files.describer, LISRD.from_pretrained("pyramid", precision="float32").describer)


@pytest.mark.slow
@pytest.mark.long
def test_describer_file_of_eight_turns_normalised_light_and_rings(tmp_path: Path) -> None:
    """The describer alone: its matcher is that of four turns, which is exported above."""
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"turns": 8, "encoder_input": "both", "first_kernel": 6, "ring_radii": (1.5, 1.5)}
    network = PyramidNetwork(replace(small_network().config, **sizes)).eval()
    image, keypoints = image_and_keypoints((75, 101), 9)
    model = export_graph(DescriberGraph(deepcopy(network)), (image, keypoints.xy), "eight turns")
    path = tmp_path / "describer.onnx"
    path.write_bytes(model.SerializeToString())
    check_describer(path, NetworkDescriber("eight", network, "", precision="float32"))


@pytest.mark.slow
def test_matcher_file(pyramid_files: ExportedFiles) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(pyramid_files.matcher))
    describer = LISRD.from_pretrained("pyramid", precision="float32").describer
    for turn, count, fewer in ((0, 80, 0), (1, 70, 20), (3, 1500, 300), (0, 1, 0), (0, 0, 0), (2, 5, 5)):
        both = turned_pair(describer, turn, count, fewer)
        graph = MatcherGraph(both[0].selection)
        feed = {
            name: value.numpy() for name, value in zip(graph.inputs, inputs_of(graph, *both), strict=True)
        }
        assert_same(session.run(None, feed), match(*both))


@pytest.mark.slow
def test_metadata_says_what_the_files_are(pyramid_files: ExportedFiles) -> None:
    import onnxruntime

    selection = LISRD.from_pretrained("pyramid").describer.network.selection
    for part in ("describer", "matcher"):
        session = onnxruntime.InferenceSession(str(getattr(pyramid_files, part)))
        metadata = session.get_modelmeta().custom_metadata_map
        assert metadata["format"] == "lisrd-onnx-1"
        assert (metadata["part"], metadata["network"]) == (part, "pyramid")
        assert metadata["weights_sha256"] == fingerprint("pyramid")
        stored = json.loads(metadata["selection"])
        assert stored["invariances"] == list(selection.invariances)
        assert stored["temperature"] == selection.temperature
        assert stored["bias"] == list(selection.bias)
    assert {
        axis for argument in session.get_inputs() for axis in argument.shape if isinstance(axis, str)
    } == {
        "keypoints0",
        "keypoints1",
    }


@pytest.mark.slow
@pytest.mark.long
def test_paper_network(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = PaperNetwork(PaperConfig(widths=(8, 8, 8, 16), descriptor_dim=16, num_clusters=4)).eval()
    save_weights(tmp_path / "small.safetensors", network, {})
    files = export_onnx(str(tmp_path / "small.safetensors"), tmp_path)
    check_describer(files.describer, NetworkDescriber("paper", network, "", precision="float32"))


def example_module() -> ModuleType:
    spec = spec_from_file_location("onnx_match", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_example_without_torch(pyramid_files: ExportedFiles, photograph: np.ndarray, tmp_path: Path) -> None:
    """Two photographs, one turned and darker: the matches that torch finds, in a process that cannot import it."""
    paths = tmp_path / "0.png", tmp_path / "1.png"
    darker = (np.rot90(photograph[:, 30:]) * 0.6).astype(np.uint8)
    for path, image in zip(paths, (photograph, darker), strict=True):
        cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    pair = LISRD.from_pretrained("pyramid", precision="float32").match_images(*paths, max_keypoints=500)

    arguments = [str(EXAMPLE), str(pyramid_files.describer), str(pyramid_files.matcher), *map(str, paths)]
    options = ["--max-keypoints", "500", "--picture", str(tmp_path / "matches.png")]
    block = "import runpy, sys; sys.modules['torch'] = None; sys.argv.pop(0)\n"
    block += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", block, *arguments, *options], capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert (answer["matches"], answer["turn"]) == (len(pair.matches), pair.matches.turn)
    assert answer["inliers"] > 0.8 * answer["matches"] > 200
    assert (tmp_path / "matches.png").stat().st_size > 10_000
    means = pair.matches.invariance_weights.mean(0).tolist()
    assert answer["invariance_weights"] == pytest.approx(
        dict(zip(pair.matches.invariances, means, strict=True)), abs=1e-3
    )


def test_example_keeps_one_keypoint_of_a_position(photograph: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    keypoints, scores = example_module().detect(photograph, 300)
    assert keypoints.shape == (1, 300, 2)
    assert len(np.unique(keypoints[0], axis=0)) == 300
    assert (np.diff(scores[0]) <= 0).all()
