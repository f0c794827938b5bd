from pathlib import Path

import numpy as np
import pytest
import torch
from zooms import interpolating, plateaus


def test_result_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    generator = interpolating(plateaus(), factor=3)
    image = torch.rand(5, 23, 17, generator=torch.Generator().manual_seed(0))
    expected = generator.super_resolve(image, tile=8)
    held = torch.full((5, 69, 51), torch.nan)
    assert generator.super_resolve(image, tile=8, out=held).data_ptr() == held.data_ptr()
    assert torch.equal(held, expected)
    np.save(tmp_path / 'low.npy', image.numpy())
    mapped = np.lib.format.open_memmap(tmp_path / 'high.npy', mode='w+', dtype=np.float32, shape=(5, 69, 51))
    generator.super_resolve(torch.from_numpy(np.load(tmp_path / 'low.npy', mmap_mode='c')), tile=8, out=mapped)
    mapped.flush()
    assert np.array_equal(np.load(tmp_path / 'high.npy'), expected.numpy())


def test_a_place_that_does_not_fit_is_named(tmp_path: Path) -> None:
    generator = interpolating(plateaus(), factor=2)
    image = torch.rand(5, 12, 12)
    with pytest.raises(ValueError, match=r'out must be \(5, 24, 24\) of float32.*found \(5, 24, 12\)'):
        generator.super_resolve(image, out=torch.empty(5, 24, 12))
    with pytest.raises(ValueError, match=r'found \(5, 24, 24\) of torch\.float64'):
        generator.super_resolve(image, out=np.empty((5, 24, 24)))
    np.save(tmp_path / 'high.npy', np.zeros((5, 24, 24), dtype=np.float32))
    with pytest.raises(ValueError, match='out is read-only'):
        generator.super_resolve(image, out=np.load(tmp_path / 'high.npy', mmap_mode='r'))
