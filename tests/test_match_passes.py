"""What is chosen without being asked for: the pass of the matcher, and the arithmetic of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from lisrd import compiled
from lisrd.describe.precision import choose_precision, has_fast_bfloat16
from lisrd.match import passes


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[str, str]]]:
    """`choose_pass("cuda")` as on a GPU, where Triton is installed and its kernel runs, or not."""

    def choose(
        capability: tuple[int, int] = (9, 0), installed: bool = True, error: Exception | None = None
    ) -> tuple[str, str]:
        def run_once() -> None:
            if error:
                raise error

        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(passes, "is_installed", lambda module: installed)
        monkeypatch.setattr(passes, "_run_once", run_once)
        passes._obstacle_to_triton.cache_clear()
        return passes.choose_pass("cuda")

    yield choose
    passes._obstacle_to_triton.cache_clear()


def test_triton_on_an_nvidia_gpu(on_a_gpu: Callable[..., tuple[str, str]]) -> None:
    assert on_a_gpu()[0] == "triton"


def test_torch_where_triton_does_not_run_and_the_reason(on_a_gpu: Callable[..., tuple[str, str]]) -> None:
    assert on_a_gpu(installed=False) == ("torch", "triton is not installed")
    chosen, reason = on_a_gpu(capability=(7, 5))
    assert (chosen, "7.5" in reason) == ("torch", True)
    chosen, reason = on_a_gpu(error=RuntimeError("Failed to find C compiler.\nat line 3"))
    assert chosen == "torch"
    assert reason.endswith("(RuntimeError: Failed to find C compiler.)")


def test_the_kernel_is_tried_once(
    on_a_gpu: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert on_a_gpu()[0] == "triton"
    monkeypatch.setattr(passes, "_run_once", lambda: pytest.fail("tried again"))
    assert passes.choose_pass("cuda")[0] == "triton"


def test_torch_on_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.version, "cuda", None
    )  # as of a build for ROCm, whose devices are called cuda, too
    for device in ("cuda", "mps"):
        assert passes.choose_pass(device) == ("torch", f"nothing faster is there for {device}")


def test_numba_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, name in ((True, "numba"), (False, "torch")):
        monkeypatch.setattr(compiled, "is_installed", lambda module, here=installed: here)
        compiled.obstacle_to.cache_clear()
        assert passes.choose_pass("cpu")[0] == name
    compiled.obstacle_to.cache_clear()


def test_torch_where_numba_cannot_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("cannot cache function: no locator available\nfor file x")

    monkeypatch.setattr(compiled, "is_installed", lambda module: True)
    monkeypatch.setattr(compiled.importlib, "import_module", broken)
    compiled.obstacle_to.cache_clear()
    chosen, reason = passes.choose_pass("cpu")
    compiled.obstacle_to.cache_clear()
    assert chosen == "torch"
    assert reason.endswith("(RuntimeError: cannot cache function: no locator available)")


def test_a_gpu_describes_in_float32_and_trains_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert choose_precision("auto", "cuda")[0] == torch.float32
    assert choose_precision("bfloat16", "cuda") == (torch.bfloat16, "asked for")
    assert has_fast_bfloat16("cuda")


@pytest.mark.parametrize("flags", [{"avx2"}, {"avx2", "avx512_bf16"}])
def test_a_cpu_is_asked_for_its_own_flags(monkeypatch: pytest.MonkeyPatch, flags: set[str]) -> None:
    """Also where there is a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("lisrd.describe.precision.cpu_flags", lambda: frozenset(flags))
    expected = torch.bfloat16 if "avx512_bf16" in flags else torch.float32
    assert choose_precision("auto", "cpu")[0] == expected
