"""Features of a folder of images in one file: resumed after any interruption, broken images listed at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.describe import Describer
from lisrd.detect import Detector, build_detector
from lisrd.errors import InputError
from lisrd.image import as_image
from lisrd.memory import is_out_of_memory
from lisrd.scale.images import NamedImage, find_images
from lisrd.scale.layout import feature_datasets, selection_attributes
from lisrd.scale.store import ResumableStore
from lisrd.scale.work import Broken, Engine, LocalEngine, Progress, Record, carry_out, in_batches

#: Images that are described at once. On a CPU a batch takes as long as its images one by one (0.201 and 0.195 s of
#: each of four images of 640 x 360, `pyramid`, one core), and more memory.
_BATCH = {"cpu": 1, "cuda": 8}


@dataclass(slots=True)
class ExtractReport:
    """How many images were described now, how many had been before, and which could not be, with the reason."""

    described: int = 0
    skipped: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)


def extract(
    images: Path | str | Sequence[Path | str],
    output: Path,
    describer: Describer,
    max_keypoints: int = 2048,
    on_progress: Progress | None = None,
    *,
    detector: str = "sift",
    root: Path | None = None,
    half: bool = True,
    keep_turns: bool = False,
    part_seconds: float = 60.0,
    batch: int | None = None,
    engine: Engine = LocalEngine(),
) -> ExtractReport:
    """Detect and describe every image into `output`, in hloc's layout (`lisrd.scale.layout`).

    `images` is a folder, a text file of paths, or a list; `root` is what their names are relative to (`find_images`).
    Images that `output` has already are skipped. `half` stores descriptors in float16, half the size; their rounding
    is far below what separates descriptors. `keep_turns` also stores the turned descriptors, which the matcher needs
    to undo the camera's turn, at 2.5 times the size, of eight turns at 4.5 times. A killed run loses at most
    `part_seconds` of work.

    `engine` says who does the work; the result is the same to the last bit. Neighbours of one size are described
    together, `batch` of them at most: 1 on a CPU, where more gain nothing, 8 on a GPU.

    Raises:
        InputError: no images, or `output` was made with another describer, detector or setting.
    """
    found = find_images(images, root)
    config = {
        "kind": "features",
        "describer": describer.config,
        "detector": detector,
        "max_keypoints": max_keypoints,
        "half": half,
        "keep_turns": keep_turns,
    }
    work = ImageWork(describer, build_detector(detector), max_keypoints, half, keep_turns)
    with ResumableStore(output, config, part_seconds) as store:
        missing = [image for image in found if not image.is_utf8 or image.name not in store]
        skipped = len(found) - len(missing)

        def advance(done: int) -> None:
            if on_progress:
                on_progress(skipped + done, len(found))

        batches = in_batches(missing, batch or _default_batch(describer))
        described, broken = carry_out(work, batches, engine, store, advance)
    return ExtractReport(described, skipped, broken)


@dataclass(frozen=True, slots=True)
class ImageWork:
    """Detects and describes images; neighbours of one size together."""

    describer: Describer
    detector: Detector
    max_keypoints: int
    half: bool
    keep_turns: bool

    def __call__(self, batch: Sequence[NamedImage]) -> list[Record | Broken]:
        outcomes: list[Record | Broken] = []
        of_one_size: dict[torch.Size, list[tuple[str, Tensor]]] = {}
        for image in batch:
            if not image.is_utf8:
                outcomes.append(Broken(ascii(image.name), "its name is not UTF-8; rename it"))
                continue
            try:
                pixels = as_image(image.path)
            except Exception as error:  # of this image; the others go on
                outcomes.append(Broken(image.name, _reason(error)))
            else:
                of_one_size.setdefault(pixels.shape, []).append((image.name, pixels))
        for group in of_one_size.values():
            names, images = zip(*group, strict=True)
            outcomes += self._described(names, torch.cat(images))
        return outcomes

    def name_of(self, item: NamedImage) -> str:
        return item.name

    def _described(self, names: Sequence[str], images: Float[Tensor, "B 3 H W"]) -> Sequence[Record | Broken]:
        try:
            keypoints = self.detector(images, self.max_keypoints)
            features = self.describer.describe(images, keypoints, self.keep_turns)
        except Exception as error:  # of their size
            return [Broken(name, _reason(error)) for name in names]
        attributes = selection_attributes(features.selection)
        return [
            Record(name, feature_datasets(features.select(i), self.half, self.keep_turns), attributes)
            for i, name in enumerate(names)
        ]


def _reason(error: Exception) -> str:
    """Why an image is broken; what is not its fault goes on."""
    if is_out_of_memory(error):
        return "needs more memory than there is: resize it, or use --workers 1 (on a GPU --batch 1)"
    if isinstance(error, InputError):
        return str(error)
    raise error


def _default_batch(describer: Describer) -> int:
    device = getattr(describer, "device", torch.device("cpu"))
    return _BATCH.get(device.type, 1)
