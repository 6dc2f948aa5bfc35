"""Readers of files keep their promise: a result or an `InputError`, whatever the bytes. `make fuzz` searches on."""

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

from readers import READERS  # noqa: E402

from lisrd.errors import InputError  # noqa: E402
from run import mutated  # noqa: E402

_MUTANTS = 40


@pytest.fixture(autouse=True)
def _no_warnings() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # broken images warn before they fail
        yield


@pytest.mark.parametrize("name", READERS)
def test_what_the_package_writes_is_read(name: str, tmp_path: Path) -> None:
    assert all(READERS[name].accepts(content, tmp_path) for content in READERS[name].seeds())


@pytest.mark.parametrize("name", READERS)
def test_mutated_and_cut_files_give_a_result_or_an_input_error(name: str, tmp_path: Path) -> None:
    reader, rng = READERS[name], random.Random(name)
    seeds = reader.seeds()
    for _ in range(_MUTANTS):
        reader.accepts(mutated(rng.choice(seeds), rng), tmp_path)
    for content in seeds:
        reader.accepts(content[: len(content) // 2], tmp_path)
    reader.accepts(b"", tmp_path)


@pytest.mark.parametrize(
    "path", sorted((FUZZ / "corpus").glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_inputs_that_once_found_something(path: Path, tmp_path: Path) -> None:
    READERS[path.parent.name].accepts(path.read_bytes(), tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("results", b'{"pairs": ' + b"[" * 100_000), ("training", b"a = " + b"[" * 100_000)],
)
def test_nesting_beyond_the_stack_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    assert not READERS[name].accepts(content, tmp_path)


def test_formats_that_run_programs_are_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match="not an image that Pillow can read"):
        READERS["image"].read(path)
