"""What is chosen without being asked for, and what is not."""

from __future__ import annotations

import pytest
import torch

from lisrd.match import passes


def test_nobody_gets_the_unmeasured_kernel_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(passes, "_is_installed", lambda module: True)
    monkeypatch.delenv(passes.TRITON_SWITCH, raising=False)
    chosen, reason = passes.choose_pass("cuda")
    assert chosen == "torch"
    assert passes.TRITON_SWITCH in reason
    monkeypatch.setenv(passes.TRITON_SWITCH, "1")
    assert passes.choose_pass("cuda")[0] == "triton"


def test_numba_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, name in ((True, "numba"), (False, "torch")):
        monkeypatch.setattr(passes, "_is_installed", lambda module, here=installed: here)
        assert passes.choose_pass("cpu")[0] == name
