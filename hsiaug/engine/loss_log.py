"""Losses of a training over its steps, in a file of comma-separated values."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..records import written_whole
from .divergence import CHECK_EVERY

_HEADER = ('stage', 'step', 'loss', 'value')
_ROWS = 100  # of each loss, at least, where there are so many steps
_Rows = dict[tuple[str, str, str], str]  # values by stage, step and loss


class LossLog:
    """The log of one stage of ``steps`` steps: means over up to 50 steps, fewer in short trainings.

    Of the stage's rows in the file, which is that of all stages, those after ``done`` are removed. Each row stands
    there once, even if another training writes to the same file at the same time.
    """

    def __init__(self, file: Path, stage: str, steps: int, done: int) -> None:
        self.file, self.stage, self.step = file, stage, done
        self._every = min(CHECK_EVERY, max(steps // _ROWS, 1))
        self._recent: list[dict[str, Tensor]] = []
        self._own: _Rows = {}
        self._size = 0  # of the file, as we left it
        file.parent.mkdir(parents=True, exist_ok=True)
        self._replace({key: value for key, value in _rows(file).items() if key[0] != stage or int(key[1]) <= done})

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Take the losses of the next step; the device is not waited for."""
        self._recent.append({name: torch.as_tensor(loss).detach().clone() for name, loss in losses.items()})

    def write(self) -> None:
        """Write what is complete of the steps that were taken since."""
        rows: _Rows = {}
        while len(self._recent) >= (count := self._every - self.step % self._every):
            block, self._recent = self._recent[:count], self._recent[count:]
            self.step += count
            for name in block[-1]:
                values = torch.stack([losses[name] for losses in block if name in losses])
                rows[self.stage, str(self.step), name] = f'{float(values.mean()):.6g}'
        self._own |= rows
        if not self.file.is_file() or self.file.stat().st_size != self._size:  # changed by somebody else
            self._replace({**_rows(self.file), **self._own})
            return
        with self.file.open('a', newline='') as opened:
            csv.writer(opened).writerows((*key, value) for key, value in rows.items())
        self._size = self.file.stat().st_size

    def _replace(self, rows: _Rows) -> None:
        with written_whole(self.file) as temporary, temporary.open('w', newline='') as opened:
            csv.writer(opened).writerows([_HEADER, *((*key, value) for key, value in rows.items())])
        self._size = self.file.stat().st_size


def read_losses(file: Path) -> dict[tuple[str, str], list[float]]:
    """Curves of a log by stage and loss, in the order of steps; none where there is no file."""
    found: dict[tuple[str, str], list[float]] = {}
    for (stage, _, loss), value in _rows(file).items():
        found.setdefault((stage, loss), []).append(float(value))
    return found


def _rows(file: Path) -> _Rows:
    """Whole rows without the header; a kill may tear off the last."""
    if not file.is_file():
        return {}
    with file.open(newline='') as opened:
        rows = [row for row in list(csv.reader(opened))[1:] if len(row) == len(_HEADER) and row[1].isdigit()]
    return {(stage, step, loss): value for stage, step, loss, value in rows}
