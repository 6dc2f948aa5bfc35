"""Valid files, small, that the package's own writers make: what mutation starts from."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL import features as pillow

from lisrd.describe.selector import Selector, SelectorConfig
from lisrd.describe.weights import save_weights
from lisrd.evaluate.cache import DescribedImage, DetectedImage, FeatureCache
from lisrd.evaluate.compare import METRICS
from lisrd.scale.layout import feature_datasets, match_datasets, names_to_pair, selection_attributes
from lisrd.scale.store import ResumableStore
from lisrd.train.checkpoint import save_checkpoint
from lisrd.types import Keypoints, LocalFeatures, Matches, Selection

CONFIGURATIONS = Path(__file__).resolve().parents[2] / "configs"


def images() -> list[bytes]:
    """Every format that is read, and every mode that has code of its own."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (17, 24, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (17, 24), dtype=np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation
    formats = ["PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF"]
    formats += [name for codec, name in (("jpg_2000", "JPEG2000"), ("avif", "AVIF")) if pillow.check(codec)]
    encoded = [_encoded(colour, name) for name in formats]
    encoded += [_encoded(colour.convert(mode), "PNG") for mode in ("L", "LA", "RGBA", "P", "1")]
    encoded += [_encoded(colour, "JPEG", exif=turned), _encoded(colour.convert("CMYK"), "JPEG")]
    return [*encoded, _encoded(deep, "PNG"), _encoded(deep, "TIFF", compression="tiff_lzw")]


def _encoded(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=name, **options)
    return buffer.getvalue()


def _features() -> LocalFeatures:
    unit = torch.nn.functional.normalize
    generator = torch.Generator().manual_seed(0)
    return LocalFeatures(
        keypoints=torch.tensor([[[1.0, 2.0], [5.0, 4.0]]]),
        keypoint_scores=torch.ones(1, 2),
        descriptors=unit(torch.randn(1, 2, 2, 4, generator=generator), dim=-1),
        meta_descriptors=unit(torch.randn(1, 2, 1, 1, 3, generator=generator), dim=-1),
        image_size=torch.tensor([[8.0, 6.0]]),
        mask=torch.ones(1, 2, dtype=torch.bool),
        selection=Selection(("oriented", "upright"), 0.5, (0.25, 0.0), (False, True), "nearest"),
    )


def _written(write: Callable[[Path], None], name: str) -> list[bytes]:
    """The bytes of the file NAME that `write` leaves in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return [(Path(folder) / name).read_bytes()]


def features() -> list[bytes]:
    """Two images' features, as `lisrd extract` writes them."""

    def write(folder: Path) -> None:
        one = _features()
        with ResumableStore(folder / "features.h5", {"kind": "features"}) as store:
            for name in ("a.png", "sub/b.png"):
                store.write(name, feature_datasets(one), selection_attributes(one.selection))

    return _written(write, "features.h5")


def matches() -> list[bytes]:
    """One pair's matches, as `lisrd match-pairs` writes them."""

    def write(folder: Path) -> None:
        one = Matches(
            torch.tensor([[0, 1], [1, 0]]), torch.ones(2), torch.full((2, 2), 0.5), (2, 2), ("a", "b")
        )
        with ResumableStore(folder / "matches.h5", {"kind": "matches"}) as store:
            store.write(names_to_pair("a", "b"), match_datasets(one))

    return _written(write, "matches.h5")


def store() -> list[bytes]:
    """A store that may be continued."""

    def write(folder: Path) -> None:
        with ResumableStore(folder / "store.h5", {"kind": "fuzzed"}) as opened:
            opened.write("one", {"values": np.arange(3)})

    return _written(write, "store.h5")


def cached_keypoints() -> list[bytes]:
    """Keypoints of an evaluation."""

    def write(folder: Path) -> None:
        keypoints = Keypoints.from_xy(torch.zeros(2, 2))
        detected = DetectedImage(keypoints, (8, 6), torch.eye(3, dtype=torch.float64), 0.1, "digest")
        FeatureCache(folder).store_keypoints("image", detected)

    return _written(write, "image.npz")


def cached_features() -> list[bytes]:
    """Features of an evaluation."""

    def write(folder: Path) -> None:
        FeatureCache(folder).store_features("small", "image", 0, DescribedImage(_features(), 0.1), "digest")

    return _written(write, "small/image.npz")


def weights() -> list[bytes]:
    """The smallest network that has a file of its own."""

    def write(folder: Path) -> None:
        config = SelectorConfig(("a", "b"), ("rot_invar", "rot_var"), 4, 2, 1)
        save_weights(folder / "weights.safetensors", Selector(config), {"made": "here"})

    return _written(write, "weights.safetensors")


def checkpoints() -> list[bytes]:
    """Two groups of tensors."""

    def write(folder: Path) -> None:
        state = {"network": {"weight": torch.ones(2, 2)}, "optimiser": {"0.step": torch.tensor(1.0)}}
        save_checkpoint(folder, 1, state, {"seed": 0, "seconds": 1.0}, keep=1)

    return _written(write, "checkpoint-0000001.safetensors")


def pickled() -> list[bytes]:
    """Both formats of `torch.save`, bare and wrapped."""
    state = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    contents = []
    for content, zipped in ((state, True), ({"state": state, "step": 3}, True), (state, False)):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        contents.append(buffer.getvalue())
    return contents


def results() -> list[bytes]:
    """Scores of two describers on two pairs."""
    scores = {describer: dict.fromkeys(METRICS, 0.5) for describer in "ab"}
    pairs = [{"name": name, "scene": "s", "part": "all", "change": {}, "scores": scores} for name in "pq"]
    settings = {"layout": "hpatches", "detector": "sift", "describers": ["a", "b"]}
    return [json.dumps({"pairs": pairs, "settings": settings}).encode()]


def training() -> list[bytes]:
    """The shipped configurations of networks."""
    return [p.read_bytes() for p in sorted(CONFIGURATIONS.glob("*.toml")) if b"bank" not in p.read_bytes()]


def bank_training() -> list[bytes]:
    """The shipped configurations of banks."""
    return [p.read_bytes() for p in sorted(CONFIGURATIONS.glob("*.toml")) if b"bank" in p.read_bytes()]


def pairs() -> list[bytes]:
    """Names with spaces and without, and a comment."""
    return ["# two pairs\na.jpg b.jpg\nä b.jpg\tc d.jpg\n".encode()]


def image_lists() -> list[bytes]:
    """A list of paths below its own folder."""
    return [b"# images\na.jpg\nsub/b c.png\n"]


def homographies() -> list[bytes]:
    """HPatches writes three rows; others write nine numbers in one."""
    return [b"1.0 0.1 5\n-0.1 1.0 7e0\n1e-5 0 1\n", b"1 0 0 0 1 0 0 0 1"]


def homography_pairs() -> list[bytes]:
    """One row with a part, one without, and a comment."""
    row = b"a.jpg b.jpg 1 0 0 0 1 0 0 0 1"
    return [b"# rows\n" + row + b"\n" + row + b" night # turned\n"]


def pose_pairs() -> list[bytes]:
    """One row of SuperGlue's format."""
    numbers = [*np.eye(3).ravel(), *np.eye(3).ravel(), *np.eye(4).ravel()]
    return [("a.jpg b.jpg 0 1 " + " ".join(f"{n:g}" for n in numbers) + "\n").encode()]


def time_stamps() -> list[bytes]:
    """RDNIM's rows `name date hour minute`."""
    return [b"a.jpg 2016-03-01 12 30\n"]
