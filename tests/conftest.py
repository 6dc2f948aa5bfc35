"""Fixtures that several test files share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference numbers, peers' weights and photographs, which are not part of the repository."""
    path = Path(os.environ.get("LISRD_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no {path}: set LISRD_SHARED to the folder with reference/, peers/ and data/")
    return path


@pytest.fixture(scope="session")
def golden(shared: Path) -> dict[str, np.ndarray]:
    """Numbers of the released code, see reference/README.md beside them."""
    path = shared / "reference" / "golden.npz"
    if not path.is_file():
        pytest.skip(f"no {path}: golden numbers are not at hand")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def photograph() -> np.ndarray:
    """A real photograph, (512, 512, 3) uint8 RGB."""
    return skimage.data.astronaut()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting needs root: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)
