"""The steps of the geometry stage beside describing the pair that they verify.

The pair is one image and itself turned, of which nearly all matches are right and refined: the most that a step costs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.end_to_end import make_photographs
from benchmarks.timing import Comparison, Effort, Run, interleaved
from lisrd import LISRD
from lisrd.image import as_image
from lisrd.verify import Steps, VerifiedPair, verify_pair
from lisrd.verify.steps import ESTIMATE_ALONE

#: What the stage does in each run; the step itself is what it takes more than the one before.
STEPS = {
    "estimate": ESTIMATE_ALONE,
    "refine": Steps("off", "on", "off"),
    "guided": Steps("off", "on", "on"),
    "full": Steps(),
}
BEFORE = {"refine": "estimate", "guided": "refine"}


def stage_runs(describer: str, max_keypoints: int, width: int = 640, height: int = 480) -> dict[str, Run]:
    """Describing both images, matching them, and the stage with each of `STEPS`."""
    model = LISRD.from_pretrained(describer)
    with tempfile.TemporaryDirectory() as folder:
        image0, image1 = (as_image(path) for path in make_photographs(Path(folder), width, height))
    pair = model.match_images(image0, image1, max_keypoints=max_keypoints)
    keypoints = [(image, model.detector(image, max_keypoints)) for image in (image0, image1)]

    def verify(steps: Steps) -> VerifiedPair:
        return verify_pair(image0, image1, pair.features0, pair.features1, pair.matches, steps=steps)

    return {
        "describe": lambda: [model.describer.describe(*described) for described in keypoints],
        "match": lambda: model.match(pair.features0, pair.features1),
        **{name: lambda steps=steps: verify(steps) for name, steps in STEPS.items()},
    }


def stage_seconds(describer: str, max_keypoints: int, effort: Effort) -> dict[str, float]:
    """Median seconds of describing, matching, each step alone, and the whole stage, on 640 x 480 pixels."""
    totals = interleaved(stage_runs(describer, max_keypoints), effort)
    return {name: total - totals.get(BEFORE.get(name, ""), 0.0) for name, total in totals.items()}


def comparisons(width: int, height: int, max_keypoints: int) -> Iterator[Comparison]:
    """Rows of `benchmarks.run`: above 1, the stage up to that step takes less than describing."""
    runs = stage_runs("pyramid", max_keypoints, width, height)
    for name, what in (
        ("estimate", "estimate alone"),
        ("refine", "estimate and refine"),
        ("full", "the whole stage"),
    ):
        yield Comparison(
            f"geometry_{name}_vs_describe",
            f"geometry stage, {what}; at most {max_keypoints} keypoints",
            f"pyramid describing both images; {width} x {height}",
            runs[name],
            runs["describe"],
        )
