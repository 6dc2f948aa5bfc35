"""What a run writes down: metrics, validation, their plot, and TensorBoard."""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from lisrd.image import read_image
from lisrd.text_files import read_lines
from lisrd.train.data.sheet import draw_sheet
from lisrd.train.data.triplets import Triplets
from lisrd.train.validation import KINDS
from lisrd.whole_file import whole_file, writing

_EVERY = 10  # steps between TensorBoard scalars


class Journal:
    """`metrics.jsonl` (a row per step), `validation.jsonl`, `validation.png` and TensorBoard events in one folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._events = directory / "tensorboard"

    @cached_property
    def _board(self) -> Any:
        """Opened by the first number: a run that is refused, or only drawn, leaves no file."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._events))

    def step(self, row: dict[str, Any]) -> None:
        """One step's losses. Raises InputError where the system cannot write."""
        self._append("metrics.jsonl", row)
        if row["step"] % _EVERY == 0:
            scalars = {f"train/{name}": value for name, value in row.items() if name != "step"}
            self._plot(scalars, int(row["step"]))

    def validation(
        self, step: int, seconds: float, scores: dict[str, dict[str, float]], seen: Triplets | None
    ) -> None:
        """Scores by kind of pair, and a sheet of the triplets that were scored."""
        self._append("validation.jsonl", {"step": step, "seconds": seconds, **scores})
        self._plot(
            {f"validation_{kind}/{n}": v for kind, by_name in scores.items() for n, v in by_name.items()},
            step,
        )
        plot_validation(self.directory / "validation.jsonl", self.directory / "validation.png")
        self._show("validation.png", step)
        if seen is not None:
            draw_sheet(seen, self.directory / "validation_triplets.png")
            self._show("validation_triplets.png", step)
        with writing(self._events):
            self._board.flush()

    def _plot(self, scalars: dict[str, Any], step: int) -> None:
        # TensorBoard's own thread writes; what it ran into is raised at the next call.
        with writing(self._events):
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)

    def _show(self, picture: str, step: int) -> None:
        pixels = read_image(self.directory / picture)
        with writing(self._events):
            self._board.add_image(Path(picture).stem, pixels, step, dataformats="HWC")

    def forget_after(self, step: int) -> None:
        """Steps after a checkpoint are done again: what was recorded of them goes, and so does half a line."""
        for name in ("metrics.jsonl", "validation.jsonl"):
            path = self.directory / name
            if path.exists():
                kept = [line for line in read_lines(path) if _step_of(line) <= step]
                with whole_file(path) as partial:
                    partial.write_text("".join(line + "\n" for line in kept))

    def _append(self, name: str, row: dict[str, Any]) -> None:
        path = self.directory / name
        with writing(path), path.open("a") as file:
            file.write(json.dumps(row, default=_number) + "\n")


def _step_of(line: str) -> float:
    """The step that a row records; half a row, from a full disk or a killed process, records none that was reached."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _number(value: Tensor) -> float:
    return float(value)


def plot_validation(source: Path, target: Path) -> None:
    """Every score over training time, one panel per kind of pair; real pairs behind the synthetic ones."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in source.read_text().splitlines()]
    real = sorted({kind for row in rows for kind in row if kind.startswith("real ")})
    kinds = (*KINDS, *real)
    figure = Figure(figsize=(3.5 * len(kinds), 4), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True)
    for panel, kind in zip(panels, kinds, strict=True):
        seen = [row for row in rows if kind in row]
        for name in seen[0][kind] if seen else ():
            style = {"soft": "-", "oracle": ":", "mean": "--"}.get(name, "-")
            minutes = [row["seconds"] / 60 for row in seen]
            width = 2.5 if name == "soft" else 1.2
            scores = [row[kind][name] for row in seen]
            # Marked points: a run that was validated once has no line to see.
            panel.plot(minutes, scores, style, lw=width, label=name, marker="o", markersize=1.5 + width)
        title = f"{kind}: precision" if kind in real else f"changed: {kind}"
        panel.set(title=title, xlabel="minutes")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("matching score or precision, per cent")
    shown = next((panel for panel in reversed(panels) if panel.lines), None)
    if shown is not None:
        figure.legend(*shown.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    with whole_file(target) as partial:
        figure.savefig(partial, dpi=110)
