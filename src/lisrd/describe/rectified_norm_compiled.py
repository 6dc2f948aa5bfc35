"""The passes of `rectified_norm` through the loops of `rectified_norm_kernel`: what is read is read once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lisrd.describe import rectified_norm_kernel as kernel
from lisrd.describe.rectified_norm import Maps, PerChannel
from lisrd.threads import run_together, shares

_TAKEN = {torch.float32: torch.float32, torch.bfloat16: torch.uint16}


class CompiledPasses:
    """`Passes` for channels-last maps of float32 or bfloat16 on a CPU."""

    @staticmethod
    def takes(x: Maps) -> bool:
        return x.dtype in _TAKEN and x.is_contiguous(memory_format=torch.channels_last) and x.numel() > 0

    def statistics(self, x: Maps) -> tuple[PerChannel, PerChannel]:
        rows = _rows(x)
        pivot = x[0, :, 0, 0].float().numpy()  # close to the mean: the squares keep their precision
        parts = _in_shares(lambda begin, end: kernel.statistics(rows, begin, end, pivot), len(rows))
        first, second = sum(parts) / len(rows)
        return torch.from_numpy(first + pivot).float(), torch.from_numpy(second - first**2).float()

    def rectified(self, x: Maps, scale: PerChannel, shift: PerChannel, shortcut: Maps | None) -> Maps:
        out = torch.empty_like(x, memory_format=torch.channels_last)
        rows, written = _rows(x), _rows(out)
        added = None if shortcut is None else _rows(shortcut)
        a, b = _numbers(scale, shift)
        _in_shares(lambda begin, end: kernel.rectified(rows, begin, end, a, b, added, written), len(rows))
        return out

    def gradient_sums(
        self,
        gradient: Maps,
        x: Maps,
        out: Maps,
        scale: PerChannel,
        shift: PerChannel,
        mean: PerChannel,
        shortcut: bool,
    ) -> tuple[PerChannel, PerChannel]:
        g, rows, reached = _rows(gradient), _rows(x), _rows(out) if shortcut else None
        numbers = _numbers(scale, shift, mean)
        parts = _in_shares(
            lambda begin, end: kernel.gradient_sums(g, rows, begin, end, *numbers, reached), len(rows)
        )
        by_bias, by_weight = torch.from_numpy(sum(parts)).float().unbind()
        return by_bias, by_weight

    def gradients(
        self,
        gradient: Maps,
        x: Maps,
        out: Maps,
        scale: PerChannel,
        shift: PerChannel,
        slope: PerChannel,
        offset: PerChannel,
        shortcut: bool,
    ) -> tuple[Maps, Maps | None]:
        g, rows, reached = _rows(gradient), _rows(x), _rows(out) if shortcut else None
        by_x = torch.empty_like(x, memory_format=torch.channels_last)
        by_shortcut = torch.empty_like(by_x) if shortcut else None
        written = _rows(by_x), None if by_shortcut is None else _rows(by_shortcut)
        numbers = _numbers(scale, shift, slope, offset)
        _in_shares(
            lambda begin, end: kernel.gradients(g, rows, begin, end, *numbers, reached, *written), len(rows)
        )
        return by_x, by_shortcut


def _in_shares(work: Callable[[int, int], Any], count: int) -> list[Any]:
    return run_together([partial(work, begin, end) for begin, end in shares(count)])


def _rows(maps: Maps) -> np.ndarray:
    """A view, of one row per pixel; of bfloat16 the bits."""
    rows = maps.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(0, 2)
    return np.asarray(rows.view(_TAKEN[maps.dtype]).numpy())


def _numbers(*values: Tensor) -> list[np.ndarray]:
    return [value.float().numpy() for value in values]
