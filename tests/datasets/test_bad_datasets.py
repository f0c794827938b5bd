"""What is wrong with a dataset: through training, the command line and mixing, one clear error and nothing written."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset

import hsiaug
from hsiaug import Generator, MixedDataset, adapt, fit
from hsiaug.cli import main
from hsiaug.datasets import SceneDataset, require_unseen_samples
from hsiaug.samples import SampleSpec

AT = 7


class Faulty(Dataset[dict[str, Any]]):
    """Twelve pairs, of which one is as bad as it is said."""

    classes: tuple[str, ...] = ('grass', 'tree')

    def __init__(self, fault: str = 'none', seed: int = 0) -> None:
        self.fault, self.seed = fault, seed
        if fault == 'class':
            self.classes = ('grass', 'tree', 'road')

    def __len__(self) -> int:
        return 0 if self.fault == 'empty' else 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        fault = self.fault if index == AT else ''
        if fault == 'raises':
            raise OSError(f'tile {AT} lies on a lost tape')
        if fault == 'longer':
            raise IndexError('list index out of range')
        rng = torch.Generator().manual_seed(index + 100 * self.seed)
        size, bands = (8, 10 if fault == 'size' else 8), 5 if fault == 'bands' else 4
        mask = torch.zeros(size, dtype=torch.int64)
        mask[: 1 + index % 4] = 1
        sample: dict[str, Any] = {'image': torch.rand((bands, *size), generator=rng), 'mask': mask}
        if self.fault == 'wavelength':
            sample['wavelength'] = torch.tensor([450.0, 550, 650, 900 if fault else 850])
        sample.pop({'mask alone': 'image', 'image alone': 'mask'}.get(fault, ''), None)
        return sample


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


FAULTS = {
    'size': r'images of 2 sizes: 8 x 8 \(11, first sample 0\), 8 x 10 \(1, first sample 7\); give size=',
    'bands': r'sample 7: its image \(5, 8, 8\) is none of 4 bands',
    'mask alone': r"sample 7: a dataset is expected .* found a dictionary with \['mask'\]",
    'image alone': r"sample 7 has no 'mask', only \['image'\]",
    'empty': 'is empty',
    'raises': 'sample 7 cannot be read: OSError: tile 7 lies on a lost tape',
    'class': r"holds \['road'\]: what never occurs cannot be learnt",
    'wavelength': 'sample 7: its wavelength of band 3 is 900 nm, that of the first sample 850',
    'longer': 'sample 7 is missing, although the dataset claims to have 12',
}


@pytest.fixture(scope='module')
def generator() -> Generator:
    return hsiaug.fit('region_paste', Faulty(seed=1))


@pytest.mark.parametrize('fault', FAULTS)
def test_training_and_mixing_name_what_is_wrong(fault: str, generator: Generator) -> None:
    bad = Faulty(fault)
    with pytest.raises((ValueError, TypeError), match=FAULTS[fault]):
        hsiaug.fit('region_paste', bad)
    val = r'classes: train .*, val .*road' if fault == 'class' else FAULTS[fault]
    with pytest.raises((ValueError, TypeError), match=val):
        hsiaug.fit('region_paste', Faulty(), val=bad)
    mixed = r"classes: real .*'road'" if fault == 'class' else FAULTS[fault]
    with pytest.raises((ValueError, TypeError), match=mixed):
        _read_all(bad, generator)


def _read_all(bad: Dataset[Any], generator: Generator) -> None:
    mixed = MixedDataset(adapt(bad), generator, 0.5)
    for index in range(len(mixed)):
        mixed[index]


@pytest.mark.parametrize('fault', FAULTS)
def test_the_command_line_says_it_in_a_line_and_leaves_nothing(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ['--data.class_path=test_bad_datasets.Faulty', f'--data.fault={fault}', '--group=samples']
    with pytest.raises(SystemExit) as stopped:
        main(['train', f'--out={tmp_path / "run"}', *data, '--generator=region_paste'])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('hsiaug: ')]
    assert re.search(FAULTS[fault], line)
    assert not (tmp_path / 'run').exists()


def test_a_dataset_without_numbers_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['train', f'--out={tmp_path / "run"}', '--data.class_path=test_bad_datasets.Endless'])
    assert 'hsiaug: train (Endless): a map-style dataset expected' in capsys.readouterr().err


def test_a_dataset_that_is_mixed_as_it_is(generator: Generator) -> None:
    with pytest.raises(ValueError, match='MixedDataset: the real dataset is empty'):
        MixedDataset(Faulty('empty'), generator, 0.5)
    with pytest.raises(ValueError, match='Faulty, to evaluate on, is empty'):
        MixedDataset(Faulty(), generator, 0.5, evaluation=Faulty('empty'))
    with pytest.raises(ValueError, match='sample 7 cannot be read: OSError: tile 7 lies on a lost tape'):
        require_unseen_samples(generator, Faulty('raises'))
    for fault, found in {
        'size': r"sample 7 holds {'image': \(4, 8, 10\), 'mask': \(8, 10\)}, sample 0 {'image': \(4, 8, 8\)",
        'bands': r"sample 7 holds {'image': \(5, 8, 8\), .*; bring all to one form",
        'image alone': r"sample 7 holds {'image': \(4, 8, 8\)}, sample 0 .*'mask'",
        'mask alone': r"a dataset is expected .* found a dictionary with \['mask'\]",
        'longer': r'one of the samples \[7\] is missing, although the dataset claims to have 12',
    }.items():
        with pytest.raises((ValueError, TypeError), match=f'Faulty: {found}'):
            MixedDataset(Faulty(fault), generator, 0.5)
    with pytest.raises(OSError, match='tile 7 lies on a lost tape'):
        MixedDataset(Faulty('raises'), generator, 0.5)


def test_a_loop_does_not_end_in_silence_where_samples_are_missing(generator: Generator) -> None:
    with pytest.raises(ValueError, match=r'Faulty: one of the samples \[7\] is missing'):
        list(MixedDataset(Faulty('longer'), generator, ratio=0))


class Given(Dataset[dict[str, Any]]):
    """Twelve pairs whose images are given in a form of their own."""

    classes = ('grass', 'tree')

    def __init__(self, form: Callable[[np.ndarray], Any]) -> None:
        self.form = form

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = np.random.default_rng(index).random((4, 8, 8), dtype=np.float32)
        return {'image': self.form(image), 'mask': torch.tensor(image[0] > 0.5).long()}


def read_only(image: np.ndarray) -> np.ndarray:
    image.setflags(write=False)
    return image


@pytest.mark.parametrize('form', [read_only, lambda x: x.astype('>f4'), lambda x: x[:, ::-1].copy()[:, ::-1]])
def test_arrays_that_torch_cannot_share_are_copied(form: Callable[[np.ndarray], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        mixed = MixedDataset(Given(form), fit('region_paste', Given(form)), 0.5)
        expected = adapt(Given(np.asarray))
        for row in range(3):
            assert torch.equal(mixed[row]['image'], expected[row]['image'])


def test_pictures_are_no_tensors() -> None:
    def picture(image: np.ndarray) -> Any:
        return Image.fromarray((255 * image[:3]).astype(np.uint8).transpose(1, 2, 0))

    for make in (adapt, lambda data: MixedDataset(data, fit('region_paste', Given(np.asarray)))):
        with pytest.raises(TypeError, match="found Image as 'image'; make a tensor of it"):
            make(Given(picture))


def test_bands_that_come_last_are_not_taken_for_columns() -> None:
    rows = [{'image': np.zeros((8, 8, 4), np.float32), 'label': k % 2} for k in range(4)]
    with pytest.raises(ValueError, match=r'\(8, 8, 4\) looks as if its bands came last'):
        adapt(rows, classes=('a', 'b'))
    spec = SampleSpec('scene', 8, ('a', 'b'), size=(8, 4))
    assert adapt(rows, spec=spec).spec == spec


def test_two_dates_by_name_are_said_to_need_adapting() -> None:
    pair = {'image1': torch.zeros(4, 8, 8), 'image2': torch.zeros(4, 8, 8), 'mask': torch.zeros(8, 8).long()}
    with pytest.raises(TypeError, match=r'hsiaug\.adapt\(dataset\) makes one image of two dates'):
        MixedDataset([pair] * 4, adapt([pair] * 4))  # type: ignore[arg-type]


class Holding(Dataset[dict[str, Any]]):
    """Six samples that hold what they are given."""

    classes = ('grass', 'tree')

    def __init__(self, transforms: Any = None, **values: Any) -> None:
        self.values, self.transforms = values, transforms

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = {'image': torch.rand(4, 8, 8), 'label': index % 2} | self.values
        return {key: value for key, value in sample.items() if value is not ...}


IMAGE = r'an image \(C,\), \(C, H, W\) or, of two dates, \(2, C, H, W\) is expected, found '


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'label': 'tree'}, r"numbers are expected as its label, found str 'tree'; give its number, counted from 0"),
        ({'label': None}, 'numbers are expected as its label, found NoneType None'),
        ({'image': [[1.0, 2.0], [3.0]]}, r'numbers are expected as its image, found list \[\[1.0, 2.0\], \[3.0\]\]'),
        ({'image1': [1.0], 'image2': 'b.tif', 'image': ...}, "numbers are expected as its image2, found str 'b.tif'"),
        ({'image': torch.rand(8, 8)}, IMAGE + r'\(8, 8\)'),
        ({'image': torch.rand(3, 4, 8, 8), 'label': ..., 'mask': torch.ones(8, 8)}, IMAGE + r'\(3, 4, 8, 8\)'),
        ({'image': torch.rand(8, 8, 4), 'label': ..., 'mask': torch.ones(8, 8)}, 'sides must agree, and bands come f'),
    ],
)
def test_values_that_are_no_numbers_or_no_image_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f'Holding: sample 0: .*{message}'):
        adapt(Holding(**values))


@pytest.mark.parametrize('classes', [{'tree': 1, 'grass': 0}, {'grass', 'tree'}, 2])
def test_names_without_an_order_are_no_list_of_classes(classes: Any) -> None:
    with pytest.raises(ValueError, match=r'Holding: classes must be a list of names, .* in the order of their labels'):
        adapt(Holding(), classes=classes)


def test_names_of_bands_are_no_wavelengths() -> None:
    names = ['B02', 'B03', 'B04', 'B08']
    assert adapt(Holding(wavelength=names)).spec.wavelengths is None
    bands = Holding()
    bands.wavelengths = names  # type: ignore[attr-defined]
    assert adapt(bands).spec.wavelengths is None
    with pytest.raises(ValueError, match="Holding: unknown kind 'seg'; choose from"):
        adapt(bands, kind='seg')  # type: ignore[arg-type]


def test_fewer_bands_by_transforms_have_no_wavelengths() -> None:
    spec = SampleSpec('scene', 4, ('grass', 'tree'), (450.0, 550.0, 650.0, 850.0), size=(8, 8))
    held = SceneDataset(torch.rand(3, 4, 8, 8), torch.tensor([0, 1, 1]), spec)
    assert adapt(held).spec == spec
    held.transforms = lambda sample: {**sample, 'image': sample['image'][:3]}
    assert (adapt(held).spec.bands, adapt(held).spec.wavelengths) == (3, None)


def test_a_mask_is_no_list_of_rows() -> None:
    with pytest.raises(ValueError, match='Subset: row numbers are expected as indices, found a mask'):
        adapt(Subset(Faulty(), torch.arange(12) > 5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (Faulty, 'Faulty is a class: make a dataset of it'),
        ({'train': Faulty(), 'test': Faulty()}, r"dict holds \['train', 'test'\] by name: give one of them"),
    ],
)
def test_a_class_and_datasets_by_name_are_no_dataset(given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        adapt(given)
