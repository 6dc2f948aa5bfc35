"""Features of a folder of images in one file: resumed after any interruption, broken images listed at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lisrd.describe import Describer
from lisrd.detect import Detector, build_detector
from lisrd.errors import InputError
from lisrd.image import as_image
from lisrd.scale.images import NamedImage, find_images
from lisrd.scale.layout import feature_datasets, selection_attributes
from lisrd.scale.lookahead import prepared_ahead
from lisrd.scale.store import ResumableStore
from lisrd.types import Keypoints

#: Called with the images done and all images.
Progress = Callable[[int, int], None]


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
) -> ExtractReport:
    """Detect and describe every image into `output`, in hloc's layout (`lisrd.scale.layout`).

    `images` is a folder, a text file of paths, or a list; `root` is what their names are relative to (`find_images`).
    Images that `output` has already are skipped. `half` stores descriptors in float16, half the size; their rounding
    is far below what separates descriptors. `keep_turns` also stores the turned descriptors, which the matcher needs
    to undo quarter turns, at 2.5 times the size. A killed run loses at most `part_seconds` of work.

    Decoding and detection of the next images run in a thread beside the description.

    Raises:
        InputError: no images, or `output` was made with another describer, detector or setting.
    """
    found = find_images(images, root)
    detect = build_detector(detector)
    config = {
        "kind": "features",
        "describer": describer.config,
        "detector": detector,
        "max_keypoints": max_keypoints,
        "half": half,
        "keep_turns": keep_turns,
    }
    report = ExtractReport()
    with ResumableStore(output, config, part_seconds) as store:
        missing = [image for image in found if image.name not in store]
        report.skipped = len(found) - len(missing)

        def prepare(image: NamedImage) -> tuple[Tensor, Keypoints]:
            return _prepared(image.path, detect, max_keypoints)

        for image, prepared in prepared_ahead(prepare, missing):
            try:
                features = describer.describe(*prepared.result(), keep_turns)
            except InputError as error:  # of this image; the others go on
                report.broken.append((image.name, str(error)))
            else:
                datasets = feature_datasets(features, half, keep_turns)
                store.write(image.name, datasets, selection_attributes(features.selection))
                report.described += 1
            if on_progress:
                on_progress(report.skipped + report.described + len(report.broken), len(found))
    return report


def _prepared(path: Path, detect: Detector, max_keypoints: int) -> tuple[Float[Tensor, "1 3 H W"], Keypoints]:
    image = as_image(path)
    return image, detect(image, max_keypoints)
