"""A source by the name of its folder, as configs have it, in every way of mixing; and what is wrong with names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from test_mix import batch_of
from torch.utils.data import DataLoader
from toys import Toy

from hsiaug import MixedBatchSampler, MixedDataset, SyntheticMix
from hsiaug.datasets import BankError, write_bank
from hsiaug.transforms.albumentations import SyntheticMix as Replace
from hsiaug.transforms.kornia import RandomSyntheticMix

REAL = Toy('segmentation', 12)
WAYS: dict[str, Callable[[Any, Any], Any]] = {
    'dataset': lambda source, ratio: MixedDataset(REAL, source, ratio),
    'sampler': lambda source, ratio: MixedBatchSampler(MixedDataset(REAL, source, ratio), 4).dataset,
    'batch': lambda source, ratio: SyntheticMix(source, ratio, real=REAL),
    'kornia': RandomSyntheticMix,
    'albumentations': Replace,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bank(Toy('segmentation', 30, seed=1), None, tmp_path / 'bank')
    return tmp_path / 'bank'


@pytest.mark.parametrize('way', WAYS)
def test_a_folder_is_the_bank_in_it(way: str, folder: Path) -> None:
    for source, ratio in ((folder, 1.0), (str(folder), 1.0), ({'gan': str(folder)}, {'gan': 1.0})):
        (pool,) = WAYS[way](source, ratio).sources.pools
        assert pool.held == 30
        assert pool.spec == REAL.spec


@pytest.mark.parametrize('way', WAYS)
def test_a_folder_without_a_bank_is_named(way: str, tmp_path: Path) -> None:
    with pytest.raises(BankError, match=r'no folder .*nowhere'):
        WAYS[way](str(tmp_path / 'nowhere'), 1.0)
    (tmp_path / 'generator').mkdir()
    (tmp_path / 'generator' / 'config.json').write_text('{}')
    with pytest.raises(TypeError, match='folder of a generator; a bank is expected'):
        WAYS[way]({'gan': tmp_path / 'generator'}, {'gan': 1.0})


def test_a_config_names_a_folder_where_a_library_takes_transforms(folder: Path) -> None:
    """As terratorch's datamodules do; test_terratorch.py runs its command line."""

    def pipeline(transforms: list[A.BasicTransform] | None = None) -> A.Compose:
        return A.Compose(transforms or [])

    parser = ArgumentParser()
    parser.add_function_arguments(pipeline)
    mix = {'class_path': 'hsiaug.transforms.albumentations.SyntheticMix', 'init_args': {'source': str(folder), 'p': 1}}
    found = parser.instantiate(parser.parse_object({'transforms': [mix, {'class_path': 'albumentations.D4'}]}))
    image, mask = np.moveaxis(REAL[0]['image'].numpy(), 0, -1), REAL[0]['mask'].numpy()
    first = found.transforms[0](image=image, mask=mask)
    assert not np.array_equal(first['image'], image)
    assert first['mask'].shape == mask.shape


def test_a_name_that_real_samples_have_as_a_key_is_refused_at_construction(folder: Path) -> None:
    real = Toy('segmentation', 12, gan=torch.tensor(1))
    for make in (lambda: MixedDataset(real, {'gan': folder}, 0.1), lambda: SyntheticMix({'gan': folder}, real=real)):
        with pytest.raises(ValueError, match=r"real samples have the keys \['gan'\]"):
            make()
    late = SyntheticMix({'gan': folder})  # which does not know the real samples yet
    with pytest.raises(ValueError, match=r"real samples have the keys \['gan'\]"):
        late(next(iter(DataLoader(real, 4))))
    assert late(batch_of(REAL, 0, 4))['source'].tolist().count(1) == 1
