"""``hsiaug train --devices 2``: two processes train what one trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

SCENE = ('--scene.simulated={height: 24, width: 24, classes: 3}', '--split.settings={fraction: 0.3}')
SETTINGS = ('--settings.iterations=8', '--settings.hidden=32')


def train(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'hsiaug.cli', 'train', f'--out={out}', *SCENE, *SETTINGS, *options]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    for devices in (1, 2):
        done = train(tmp_path / str(devices), f'--devices={devices}')
        assert done.returncode == 0, done.stderr
        assert done.stdout.count('trained on') == 1  # one process speaks, and one writes
    alone, together = (load_file(tmp_path / str(devices) / 'model.safetensors') for devices in (1, 2))
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, rtol=1e-5, atol=1e-5)


def test_a_batch_that_does_not_divide_is_one_line(tmp_path: Path) -> None:
    done = train(tmp_path / 'run', '--devices=2', '--settings.batch_size=7')
    assert done.returncode == 2
    assert 'a batch of 7 cannot be shared by 2 processes; choose a batch_size that is a multiple of 2' in done.stderr
    assert not (tmp_path / 'run' / 'model.safetensors').exists()
