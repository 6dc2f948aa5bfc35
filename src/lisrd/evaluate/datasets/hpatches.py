"""HPatches (Balntas et al., CVPR 2017): scenes `v_*` (viewpoint) and `i_*` (illumination).

    ROOT/v_graf/1.ppm .. 6.ppm, H_1_2 .. H_1_6

png and jpg are read too, and fewer than six images. Homographies lead from image 1 to image k.
"""

from __future__ import annotations

from pathlib import Path

from lisrd.errors import InputError
from lisrd.evaluate.datasets.preparation import ResizeAndCrop, Step
from lisrd.evaluate.datasets.records import EvaluationImage, EvaluationPair, read_homography, require_folder

LAYOUT = "scene folders v_NAME and i_NAME, each with 1.ppm .. 6.ppm (or png, jpg) and H_1_2 .. H_1_6"
SOURCE = "the HPatches project page ('HPatches full image sequences')"
PARTS = {"v": "viewpoint", "i": "illumination"}
SUFFIXES = (".ppm", ".png", ".jpg", ".jpeg", ".webp")
#: Width and height of the paper's evaluation.
PAPER_SIZE = (640, 480)


def hpatches_pairs(root: Path, resize: bool = True) -> list[EvaluationPair]:
    """Image 1 of every scene with each of the others; `resize` to 480 x 640 as in the paper.

    Raises `InputError` where `root` holds no such scene.
    """
    require_folder(root, "HPatches", LAYOUT, SOURCE)
    scenes = sorted(p for p in root.iterdir() if p.is_dir() and p.name[:2] in ("v_", "i_"))
    steps: tuple[Step, ...] = (ResizeAndCrop(*PAPER_SIZE),) if resize else ()
    pairs = [pair for scene in scenes for pair in _scene_pairs(scene, steps)]
    if not pairs:
        raise InputError(f"no HPatches scenes in {root}: it should hold {LAYOUT}; get it from {SOURCE}")
    return pairs


def _scene_pairs(scene: Path, steps: tuple[Step, ...]) -> list[EvaluationPair]:
    images = {int(p.stem): p for p in scene.iterdir() if p.stem.isdigit() and p.suffix.lower() in SUFFIXES}
    homographies = {int(p.name[4:]) for p in scene.glob("H_1_*") if p.name[4:].isdigit()}
    reference = images.get(1, scene / "1.ppm")
    others = sorted((set(images) | homographies) - {1})
    return [_pair(scene, reference, images.get(k, scene / f"{k}.ppm"), k, steps) for k in others]


def _pair(scene: Path, path0: Path, path1: Path, k: int, steps: tuple[Step, ...]) -> EvaluationPair:
    H, broken = read_homography(scene / f"H_1_{k}")
    image0, image1 = EvaluationImage(path0, steps), EvaluationImage(path1, steps)
    return EvaluationPair(
        f"{scene.name}/1-{k}", scene.name, PARTS[scene.name[0]], image0, image1, H, broken=broken
    )
