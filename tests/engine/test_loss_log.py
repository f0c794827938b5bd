"""The log of losses: means over few steps, the same after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from hsiaug.engine import Run, Training
from hsiaug.engine.loss_log import LossLog, read_losses


class Falling(Training):
    """Its loss is the number of its step; a second one is there in odd steps only."""

    def __init__(self, steps: int, name: str = 'falling', stop: int | None = None) -> None:
        super().__init__(name, {'net': nn.Linear(1, 1)}, {}, steps, 0, torch.device('cpu'))
        self.stop, self.loss = stop, torch.zeros(())

    def update(self, rng: torch.Generator) -> None:
        self.loss.fill_(self.step)  # in place, as replayed graphs write it
        self.losses = {'loss': self.loss, **({'odd': self.loss} if self.step % 2 else {})}
        if self.step == self.stop:
            raise RuntimeError('killed')


def test_rows_are_means_over_up_to_fifty_steps(tmp_path: Path) -> None:
    Falling(50).run(Run(losses=tmp_path / 'short.csv'))
    assert read_losses(tmp_path / 'short.csv')['falling', 'loss'] == list(range(50))
    Falling(300).run(Run(losses=tmp_path / 'middle.csv'))
    assert read_losses(tmp_path / 'middle.csv')['falling', 'loss'] == [3 * block + 1 for block in range(100)]
    Falling(20_000).run(Run(losses=tmp_path / 'long.csv'))
    curves = read_losses(tmp_path / 'long.csv')
    assert curves['falling', 'loss'] == [50 * block + 24.5 for block in range(400)]
    assert curves['falling', 'odd'] == [50 * block + 25 for block in range(400)]


def test_a_killed_training_leaves_the_log_of_an_undisturbed_one(tmp_path: Path) -> None:
    run = Run(every=100, folder=tmp_path, losses=tmp_path / 'losses.csv')
    Falling(60, 'first').complete(run, 'first.safetensors', {})
    with pytest.raises(RuntimeError, match='killed'):
        Falling(500, stop=333).complete(run, 'second.safetensors', {})
    (tmp_path / 'losses.csv').open('a').write('falling,3')  # torn off
    Falling(500).complete(run, 'second.safetensors', {})
    whole = replace(run, losses=tmp_path / 'whole.csv')
    Falling(60, 'first').complete(whole, 'third.safetensors', {})
    Falling(500).complete(whole, 'fourth.safetensors', {})
    assert (tmp_path / 'losses.csv').read_text() == (tmp_path / 'whole.csv').read_text()
    # Another training in its place leaves nothing of it.
    Falling(60).complete(run, 'fifth.safetensors', {})
    assert len(read_losses(tmp_path / 'losses.csv')['falling', 'loss']) == 60


def test_trainings_that_write_at_once_leave_each_row_once(tmp_path: Path) -> None:
    file = tmp_path / 'losses.csv'
    one, other, third = LossLog(file, 'a', 50, 0), LossLog(file, 'a', 50, 0), LossLog(file, 'b', 50, 0)
    for step in range(50):
        for log in (one, other, third):
            log.add({'loss': torch.tensor(float(step))})
            log.write()
        if step == 20:
            file.unlink()  # tidied up
    assert len(file.read_text().splitlines()) == 1 + 2 * 50
    assert read_losses(file) == {(stage, 'loss'): list(range(50)) for stage in 'ab'}


def test_no_file_is_no_curve(tmp_path: Path) -> None:
    assert read_losses(tmp_path / 'missing.csv') == {}
    Falling(5).run(Run(folder=tmp_path))
    assert list(tmp_path.iterdir()) == []
