"""``hsiaug train --devices 2``: two processes train what one trains."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from banks import launched
from lightning.fabric import Fabric
from safetensors.torch import load_file
from torch.utils.data import Dataset

import hsiaug
from hsiaug.cli import main

SCENE = ('--scene.simulated={height: 24, width: 24, classes: 3}', '--split.settings={fraction: 0.3}')
SETTINGS = ('--settings.iterations=8', '--settings.hidden=32')


class Pairs(Dataset):
    """Images with masks, as a user would write them."""

    classes = ('dark', 'light')

    def __len__(self):
        return 24

    def __getitem__(self, index):
        rng = torch.Generator().manual_seed(index)
        mask = (torch.rand((16, 16), generator=rng) < 0.4).long()
        return {'image': torch.rand((5, 16, 16), generator=rng) + mask, 'mask': mask[None]}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def train(out: Path, *options: str) -> list[str]:
    return ['train', f'--out={out}', *SCENE, *SETTINGS, *options]


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    main(train(tmp_path / '1'))
    done = run('-m', 'hsiaug.cli', *train(tmp_path / '2', '--devices=2'))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('trained on') == 1  # one process speaks, and one writes
    alone, together = (load_file(tmp_path / str(devices) / 'model.safetensors') for devices in (1, 2))
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        scale = value.abs().max().clamp_min(1)  # the calibration of a network of eight steps goes into the thousands
        torch.testing.assert_close(together[key] / scale, value / scale, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_what_one_does_from_a_class_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'import torch\nfrom torch.utils.data import Dataset\n' + inspect.getsource(Pairs)
    (tmp_path / 'pairs_of_a_user.py').write_text(source)
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')]))
    painter = 'image_latents: 2, mask_latents: 2, vae_channels: 4, unet_channels: [8, 16], vae_batch_size: 4'
    data = (
        '--data.class_path=pairs_of_a_user.Pairs', '--unlabelled.class_path=pairs_of_a_user.Pairs', '--group=samples',
        '--generator=two_stream_diffusion', f'--settings={{{painter}, vae_iterations: 8, diffusion_iterations: 8}}',
    )  # fmt: skip
    for devices in (1, 2):
        done = run('-m', 'hsiaug.cli', 'train', f'--out={tmp_path / str(devices)}', *data, f'--devices={devices}')
        assert done.returncode == 0, done.stderr
        assert done.stdout.count('trained on') == 1
    alone, together = (tmp_path / str(devices) for devices in (1, 2))
    assert (alone / 'run.json').read_bytes() == (together / 'run.json').read_bytes()
    first, second = (load_file(place / 'model.safetensors') for place in (alone, together))
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-5, atol=1e-5)


def test_a_batch_that_does_not_divide_is_one_line(tmp_path: Path) -> None:
    def refused(fabric: Fabric) -> None:
        with contextlib.redirect_stderr(io.StringIO()) as said, pytest.raises(SystemExit) as stopped:
            main(train(tmp_path / 'run', '--devices=2', '--settings.batch_size=7'))
        assert stopped.value.code == 2
        (tmp_path / f'said-{fabric.global_rank}').write_text(said.getvalue())

    launched(refused)
    for rank in (0, 1):
        said = (tmp_path / f'said-{rank}').read_text()
        assert 'a batch of 7 cannot be shared by 2 processes; choose a batch_size that is a multiple of 2' in said
    assert not (tmp_path / 'run' / 'model.safetensors').exists()


def test_two_processes_train_what_one_does_from_a_dataset(tmp_path: Path) -> None:
    """And reading it batch by batch what memory does."""

    def fit(devices: int, name: str) -> None:
        generator = hsiaug.fit(
            'two_stream_diffusion', Pairs(), unlabelled=Pairs(), devices=devices, workers=1, in_memory=devices == 1,
            vae_channels=4, unet_channels=(8, 16), vae_iterations=4, diffusion_iterations=4, image_latents=2,
            mask_latents=2, cache_latents=False, vae_batch_size=4,
        )  # fmt: skip
        generator.save_pretrained(tmp_path / name)

    fit(1, 'alone')
    launched(lambda fabric: fit(2, f'rank-{fabric.global_rank}'))
    alone, first, second = (load_file(tmp_path / name / 'model.safetensors') for name in ('alone', 'rank-0', 'rank-1'))
    for key, value in alone.items():
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-4)
        assert torch.equal(first[key], second[key])
