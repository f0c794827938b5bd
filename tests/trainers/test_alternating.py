from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hsiaug.trainers.alternating import CHECK_EVERY, PATIENCE, AlternatingTraining
from hsiaug.trainers.checkpoint import found_checkpoint


class Counting(AlternatingTraining):
    """Does nothing but to report losses of its own."""

    def __init__(self, verdict: float, steps: int) -> None:
        super().__init__('counting', {'net': nn.Linear(1, 1)}, {}, steps, 0, torch.device('cpu'))
        self.verdict, self.draws = verdict, list[float]()

    def update(self, rng: torch.Generator) -> None:
        self.draws.append(float(torch.rand((), generator=rng)))
        self.losses = {'discriminator': torch.tensor(self.verdict)}


def test_collapse_of_a_discriminator_is_reported_once() -> None:
    with pytest.warns(UserWarning, match='no longer deceived') as caught:
        Counting(1e-4, (PATIENCE + 4) * CHECK_EVERY).run(None, {}, 1, False)
    assert len(caught) == 1


@pytest.mark.filterwarnings('error')
def test_honest_discriminators_and_short_runs_pass() -> None:
    Counting(0.5, (PATIENCE + 4) * CHECK_EVERY).run(None, {}, 1, False)
    Counting(1e-4, (PATIENCE - 1) * CHECK_EVERY).run(None, {}, 1, False)


def test_each_step_has_a_stream_of_its_own() -> None:
    training = Counting(0.5, 40)
    training.run(None, {}, 1, False)
    assert len(set(training.draws)) == 40
    later = Counting(0.5, 40)
    later.step = 25
    later.run(None, {}, 1, False)
    assert later.draws == training.draws[25:]


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / 'training.safetensors'
    file.write_bytes(b'nothing')
    with pytest.raises(ValueError, match='truncated or no checkpoint'):
        found_checkpoint(file)
    save_file({'a': torch.zeros(1)}, file)
    with pytest.raises(ValueError, match="lacks \\['identity', 'stage', 'step'\\]"):
        found_checkpoint(file)
