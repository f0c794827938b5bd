"""``hsiaug train`` of spectral GANs, killed and started again."""

import multiprocessing
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from weights import same

from hsiaug.cli import main
from hsiaug.engine import Run
from hsiaug.engine.checkpoint import found_checkpoint
from hsiaug.systems import Generator, TrainingData
from hsiaug.systems.ensemble import Ensemble
from hsiaug.systems.saved import TRAINING_FOLDER
from hsiaug.systems.spectral_gan.train import CHECKPOINT_FILE, SpectralGANTraining
from hsiaug.trainers import fit_generator

SCENE = ('--scene.simulated={height: 24, width: 24, classes: 3}', '--split.settings={fraction: 0.3}')
SETTINGS = {'iterations': 240, 'hidden': 8, 'layers': 1, 'batch_size': 8, 'components': 4, 'select_every': 60}


@pytest.fixture(autouse=True)
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """One every 80 steps, so that a short training has several."""
    monkeypatch.setattr('hsiaug.systems.fit.Run', partial(Run, every=80))


def command(out: Path, **settings: Any) -> list[str]:
    options = [f'--settings.{name}={value}' for name, value in {**SETTINGS, **settings}.items()]
    return ['train', f'--out={out}', '--generator=spectral_gan', *SCENE, *options]


def killed_after(out: Path, step: int) -> None:
    """Start the command, and kill it once its checkpoint is of that step or a later one."""
    checkpoint, deadline = out / TRAINING_FOLDER / CHECKPOINT_FILE, time.monotonic() + 120
    process = multiprocessing.get_context('fork').Process(target=main, args=(command(out),))
    process.start()
    while not (checkpoint.exists() and int(found_checkpoint(checkpoint)['step']) >= step):
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_killed_command_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed, out = tmp_path / 'undisturbed', tmp_path / 'killed'
    main(command(undisturbed))
    for step in (80, 160):
        killed_after(out, step)
    assert not (out / 'model.safetensors').exists()
    steps, update = [0], SpectralGANTraining.update
    monkeypatch.setattr(
        SpectralGANTraining, 'update', lambda self, rng: (steps.append(self.step), update(self, rng))[1]
    )
    main(command(out))
    assert len(steps) - 1 <= 80  # what was done is not done again
    states = [load_file(folder / 'model.safetensors') for folder in (undisturbed, out)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert {file.name for file in (out / TRAINING_FOLDER).iterdir()} == {'losses.csv'}
    logs = [(folder / TRAINING_FOLDER / 'losses.csv').read_text().split() for folder in (undisturbed, out)]
    # Each row once; one that a checkpoint lies within is the mean over the steps since.
    assert [row.rpartition(',')[0] for row in logs[0]] == [row.rpartition(',')[0] for row in logs[1]]
    assert sum(row != other for row, other in zip(*logs, strict=True)) <= 6
    samples = [Generator.from_pretrained(folder).sample(5, seed=0)['image'] for folder in (undisturbed, out)]
    assert torch.equal(*samples)


def test_the_checkpoint_of_another_training_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed_after(tmp_path, 80)
    with pytest.raises(SystemExit) as stopped:
        main(command(tmp_path, hidden=9))
    assert stopped.value.code == 2
    assert "'hidden': (8, 9)" in capsys.readouterr().err


@pytest.mark.parametrize('at', [(0, 7), (1, 0), (1, 12)])
def test_members_of_an_ensemble_go_on_where_they_were(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: tuple[int, int]
) -> None:
    settings = {'iterations': 12, 'hidden': 8, 'layers': 1, 'members': 2}
    expected = fit_generator('spectral_gan', data, settings, seed=3)
    begun, undisturbed = [0], SpectralGANTraining.update

    def update(self: SpectralGANTraining, rng: torch.Generator) -> None:
        begun[0] += self.step == 0
        if (begun[0] - 1, self.step) == at:
            raise KeyboardInterrupt
        undisturbed(self, rng)

    with monkeypatch.context() as patch:
        patch.setattr(SpectralGANTraining, 'update', update)
        if at[1] < 12:
            with pytest.raises(KeyboardInterrupt):
                fit_generator('spectral_gan', data, settings, seed=3, folder=tmp_path)
        else:  # killed when both were done
            patch.setattr(Ensemble, 'of', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                fit_generator('spectral_gan', data, settings, seed=3, folder=tmp_path)
    steps: list[int] = []
    monkeypatch.setattr(
        SpectralGANTraining, 'update', lambda self, rng: (steps.append(self.step), undisturbed(self, rng))[1]
    )
    resumed = fit_generator('spectral_gan', data, settings, seed=3, folder=tmp_path)
    assert len(steps) == {(0, 7): 24, (1, 0): 12, (1, 12): 0}[at]
    assert same(resumed, expected)
    assert list(tmp_path.iterdir()) == []
