"""What changed between two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lisrd.errors import InputError
from lisrd.evaluate import compare


def run(
    gain: float = 0.0, names: tuple[str, ...] = ("net", "sift"), pairs: range = range(20), **settings: Any
) -> Any:
    """Twenty pairs of very different difficulty; `net` is better by `gain` on every one."""

    def scores(name: str, k: int) -> dict[str, Any]:
        value = k / 40 + (gain if name == "net" else 0)
        undefined = {"homography_accuracy": None, "homography_accuracy_magsac": None}
        return {"precision": value, "recall": value, "num_correct": 10 * k, **undefined}

    return {
        "settings": {
            "describers": list(names),
            "layout": "pairs",
            "detector": "sift",
            "max_keypoints": 1000,
            **settings,
        },
        "pairs": [
            {
                "name": f"p{k}",
                "part": "day" if k < 10 else "night",
                "scores": {n: scores(n, k) for n in names},
            }
            for k in pairs
        ],
    }


def row(found: dict[str, Any], describer: str, part: str) -> dict[str, Any]:
    (only,) = [r for r in found["rows"] if (r["describer"], r["part"]) == (describer, part)]
    return only


def test_a_small_steady_gain_is_seen() -> None:
    found = compare(run(), run(gain=0.02))
    change = row(found, "net", "all")["metrics"]["precision"]
    assert change["difference"] == pytest.approx(0.02)
    assert change["b"] - change["a"] == pytest.approx(0.02)
    assert change["interval"] == pytest.approx([0.02, 0.02])
    assert change["better"] == 1
    assert row(found, "sift", "all")["metrics"]["precision"]["difference"] == 0
    assert (row(found, "net", "day")["pairs"], row(found, "net", "night")["pairs"]) == (10, 10)
    assert "homography_accuracy" not in row(found, "net", "all")["metrics"]


def test_swapping_the_runs_turns_the_gain_round() -> None:
    forth, back = compare(run(), run(gain=0.02)), compare(run(gain=0.02), run())
    assert row(forth, "net", "all")["metrics"]["recall"]["difference"] == pytest.approx(
        -row(back, "net", "all")["metrics"]["recall"]["difference"]
    )


def test_pairs_of_one_run_alone_are_named_not_used() -> None:
    broken = run(pairs=range(2, 22))
    broken["pairs"][0]["scores"] = {}
    found = compare(run(), broken)
    assert row(found, "net", "all")["pairs"] == 17
    assert (found["only_a"], found["only_b"]) == (["p0", "p1", "p2"], ["p20", "p21"])


def test_files_and_chosen_describers(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(run()))
    (tmp_path / "b.json").write_text(json.dumps(run(gain=0.1, max_keypoints=500)))
    found = compare(tmp_path / "a.json", str(tmp_path / "b.json"), "sift", "net")
    assert [r["describer"] for r in found["rows"]] == ["sift -> net"] * 3
    assert row(found, "sift -> net", "all")["metrics"]["precision"]["difference"] == pytest.approx(0.1)
    assert found["settings"] == {"max_keypoints": [1000, 500]}


def test_every_setting_that_differs_is_named_but_the_describers() -> None:
    found = compare(run(root="data", longest_side=640), run(names=("net",), root="other", limit=None))
    assert found["settings"] == {"root": ["data", "other"], "longest_side": [640, None]}


def test_single_describers_of_different_names_are_compared() -> None:
    found = compare(run(names=("sift",)), run(gain=0.1, names=("net",)))
    assert {r["describer"] for r in found["rows"]} == {"sift -> net"}


def test_what_cannot_be_compared_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no .*gone\.json"):
        compare(tmp_path / "gone.json", run())
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match=r"results\.json"):
        compare(run(), tmp_path / "list.json")
    (tmp_path / "torn.json").write_text('{"pairs": ')
    with pytest.raises(InputError, match=r"torn\.json is not"):
        compare(run(), tmp_path / "torn.json")
    with pytest.raises(InputError, match="share no pair"):
        compare(run(), run(pairs=range(50, 60)))
    with pytest.raises(InputError, match="name one of each"):
        compare(run(), run(names=("x", "y")))
    with pytest.raises(InputError, match="run A has net, sift"):
        compare(run(), run(), "pyramid")
