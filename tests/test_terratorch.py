"""terratorch's command line with the worked config, in an environment that has terratorch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from rasterio.transform import from_origin
from toys import mask_of

from hsiaug.datasets import write_bank
from hsiaug.samples import SampleSpec

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / 'configs' / 'terratorch_mixed.yaml'
BANDS, SIZE = 4, 32
SEEN = """
from lightning.pytorch import Callback

class Seen(Callback):
    '''Counts synthetic images, whose last band is flat, and checks that each has its own mask.'''

    def on_train_batch_start(self, trainer, task, batch, number):
        flat = batch['image'][:, -1].flatten(1).std(dim=1) < 1e-6
        first = batch['image'][:, 0] * 0.1 + 0.3  # the normalisation, undone
        right = ((first > 0.4).long() + (first > 0.7) == batch['mask']).flatten(1).float().mean(dim=1) > 0.999
        with open('seen.txt', 'a') as file:
            file.write(f'{int(flat.sum())} {len(flat)} {int(right.sum())}\\n')
"""


@pytest.fixture(scope='session')
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with terratorch: of HSIAUG_TERRATORCH, or a new environment of Python 3.12 (minutes, 7 GB)."""
    if named := os.environ.get('HSIAUG_TERRATORCH'):
        return named
    pyenv = sorted(map(str, (Path.home() / '.pyenv' / 'versions').glob('3.12*/bin/python3.12')))
    found = [sys.executable] if sys.version_info >= (3, 12) else [*filter(None, [shutil.which('python3.12')]), *pyenv]
    if not found:
        pytest.skip('terratorch asks for Python 3.12, which is not here')
    venv = tmp_path_factory.mktemp('terratorch')
    python = str(venv / 'bin' / 'python')
    steps = ([found[-1], '-m', 'venv', str(venv)], [python, '-m', 'pip', 'install', '-q', str(ROOT), 'terratorch>=1.2'])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f'no environment with terratorch could be made: {done.stderr[-300:]}')
    return python


def write_pairs(folder: Path, count: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for number in range(count):
        image = torch.rand(BANDS, SIZE, SIZE, generator=rng)
        for kind, array in (('images', image.numpy()), ('masks', mask_of(image)[None].numpy().astype(np.uint8))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            place = {'crs': 'EPSG:32633', 'transform': from_origin(500_000, 5_800_000, 10, 10)}
            with rasterio.open(
                folder / kind / f'{number:03d}.tif', 'w', 'GTiff', SIZE, SIZE, len(array), dtype=array.dtype, **place
            ) as file:
                file.write(array)


class Pairs(torch.utils.data.Dataset[Any]):
    """Synthetic pairs, whose last band is flat."""

    spec = SampleSpec('segmentation', BANDS, ('a', 'b', 'c'), size=(SIZE, SIZE))

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = torch.rand(BANDS, SIZE, SIZE, generator=torch.Generator().manual_seed(1000 + index))
        image[-1] = 0.5
        return {'image': image, 'mask': mask_of(image)}


@pytest.mark.slow
def test_terratorch_trains_on_real_and_synthetic_pairs(interpreter: str, tmp_path: Path) -> None:
    for part, count in (('train', 32), ('val', 4), ('test', 4)):
        write_pairs(tmp_path / 'data' / part, count, seed=count)
    write_bank(Pairs(), None, tmp_path / 'runs' / 'bank')
    (tmp_path / 'seen.py').write_text(SEEN)
    config = yaml.safe_load(CONFIG.read_text())
    config['trainer'] = {
        'max_epochs': 4, 'accelerator': 'cpu', 'logger': False, 'enable_checkpointing': False,
        'enable_progress_bar': False, 'callbacks': [{'class_path': 'seen.Seen'}], 'default_root_dir': str(tmp_path),
    }  # fmt: skip
    config['data']['init_args'] |= {'num_workers': 2, 'batch_size': 8}
    (tmp_path / 'config.yaml').write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [interpreter, '-m', 'terratorch', 'fit', '--config', 'config.yaml'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{tmp_path}', 'PYTHONWARNINGS': 'ignore'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = np.loadtxt(tmp_path / 'seen.txt', dtype=int).reshape(-1, 3)
    synthetic, total, right = counts.sum(axis=0)
    assert total == right == 4 * 32
    assert 26 <= synthetic <= 60  # 128 draws of probability 1/3: mean 42.7, standard deviation 5.3
    assert len(set(counts[:, 0].tolist())) > 1  # workers and epochs draw anew
