"""What images in memory have in common, with one label each, with masks, and of two dates."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from toys import Toy, aligned, keys_of, toy_spec

from hsiaug import fit
from hsiaug.datasets import IGNORE, ChangeDataset, PatchDataset, SceneDataset, require_unseen_samples, write_bank
from hsiaug.samples import Kind, LeakageError, Sample

CLASSES: dict[Kind, Any] = {'scene': SceneDataset, 'segmentation': PatchDataset, 'change': ChangeDataset}
all_kinds = pytest.mark.parametrize('kind', CLASSES)


def held(kind: Kind, n: int = 12, **options: Any) -> Any:
    toy = Toy(kind, n)
    return CLASSES[kind](toy.data['image'], toy.data[toy.spec.target_key], toy.spec, **options)


@all_kinds
def test_loader_transforms_and_batches(kind: Kind) -> None:
    plain, dataset = held(kind), held(kind, transforms=lambda sample: {**sample, 'image': sample['image'] + 1})
    order, key = [3, 0, -1], dataset.spec.target_key
    batch = dataset.batch(order)
    assert torch.equal(batch['image'], dataset.image[order])
    assert torch.equal(batch[key], dataset.target[order])
    for row, index in enumerate(order):
        assert torch.equal(dataset[index]['image'], batch['image'][row] + 1)
    loaded = list(DataLoader(dataset, batch_size=5))
    assert torch.equal(torch.cat([b['image'] for b in loaded]), plain.image + 1)
    assert torch.equal(torch.cat([b[key] for b in loaded]), plain.target)
    for index in (12, -13):
        with pytest.raises(IndexError, match=f'{type(dataset).__name__}: index out of range for 12 samples'):
            dataset[index]
    # What a caller writes into a sample stays out of the dataset.
    dataset.batch([0])['image'].zero_()
    assert torch.equal(dataset.image, plain.image)


class Bare(Toy):
    """As other libraries have samples: no spec, and masks of another layout and dtype."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind, 3)
        del self.spec

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        if (mask := sample.get('mask')) is not None:
            sample['mask'] = (mask[None] if mask.ndim == 2 else mask[0]).int()
        return sample


@all_kinds
def test_any_dataset_is_read_as_it_is(kind: Kind) -> None:
    toy, cls = Toy(kind, 7), CLASSES[kind]
    copy = cls.from_dataset(toy)
    assert copy.spec == toy.spec
    assert keys_of(copy.image) == keys_of(toy.data['image'])
    assert torch.equal(copy.target, toy.data[toy.spec.target_key])
    assert kind == 'scene' or aligned(copy.batch(range(7)))
    bare = Bare(kind)
    assert torch.equal(cls.from_dataset(bare, toy_spec(kind)).target, bare.data[toy.spec.target_key])
    if kind != 'scene':
        halves = [{**toy[k], 'mask': toy[k]['mask'] / 2} for k in range(7)]
        with pytest.raises(ValueError, match='sample 0: whole numbers are expected in its mask'):
            cls.from_dataset(halves, toy.spec)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='Bare has no spec'):
        cls.from_dataset(bare)
    shape = r'\(2, 5, 8, 8\)' if kind == 'change' else r'\(5, 8, 8\)'
    with pytest.raises(ValueError, match=f'sample 0 has image {shape} .* cut images of other sizes into windows'):
        cls.from_dataset(toy, replace(toy.spec, bands=4))


def at(values: Tensor, row: int, *found: float) -> Tensor:
    """Values of which the first ones of a row are others."""
    changed = values.clone()
    changed[row].view(-1)[: len(found)] = torch.tensor(found).to(values)
    return changed


MISTAKES: list[tuple[Kind, dict[str, Any], str]] = [
    *[(kind, {'image': lambda x: at(x, 4, torch.nan)}, '1 of 12 samples hold NaN or infinite values in image, the '
       'first is sample 4') for kind in CLASSES],
    *[(kind, {'image': lambda x: x.double()}, 'image must be .* torch.float32, found .* torch.float64')
      for kind in CLASSES],
    ('scene', {'spec': toy_spec('segmentation')}, r"a spec of kind 'scene' is needed, found 'segmentation'"),
    ('scene', {'target': lambda y: y[:11]}, r'label must be \(12,\) torch.int64, found \(11,\)'),
    ('scene', {'target': lambda y: at(y, 7, 3)}, r'label of sample 7 holds \[3\], expected 0 to 2'),
    ('segmentation', {'spec': toy_spec('scene')}, r"kind 'segmentation' is needed, found 'scene'"),
    ('segmentation', {'target': lambda y: y.int()}, r'mask must be \(12, 8, 8\) torch.int64, found .* torch.int32'),
    ('segmentation', {'target': lambda y: y[:2]}, r'mask must be \(12, 8, 8\) torch.int64, found \(2, 8, 8\)'),
    ('segmentation', {'image': lambda x: x[..., :7]}, r'image must be \(12, 5, 8, 8\) .* found \(12, 5, 8, 7\)'),
    ('segmentation', {'target': lambda y: at(y, 2, 3, IGNORE), 'spec': toy_spec('segmentation', ignore_index=IGNORE)},
     r'mask of sample 2 holds \[3\], expected 0 to 2 or 255'),
    ('segmentation', {'target': lambda y: at(y, 2, 3, IGNORE)}, r'mask of sample 2 holds \[3, 255\], expected 0 to 2'),
    ('change', {'spec': toy_spec('segmentation')}, "'change' with two classes is needed, found 'segmentation'"),
    ('change', {'spec': toy_spec('change', classes=tuple('abc'))}, r"found 'change' with \('a', 'b', 'c'\)"),
    ('change', {'target': lambda y: y[:, 0]}, r'mask must be \(12, 1, 8, 8\) torch.int64, found \(12, 8, 8\)'),
    ('change', {'image': lambda x: x[:, :, :4]}, r'image must be \(12, 2, 5, 8, 8\) .* found \(12, 2, 4, 8, 8\)'),
    ('change', {'target': lambda y: y + 1, 'spec': toy_spec('change', ignore_index=IGNORE)},
     r'mask holds \[1, 2\], expected 0 .*, 255 where ignored; subtract 1'),
]  # fmt: skip


@pytest.mark.parametrize(('kind', 'changes', 'message'), MISTAKES)
def test_mistakes_are_named(kind: Kind, changes: dict[str, Any], message: str) -> None:
    good = held(kind)
    image, target = changes.get('image', torch.clone)(good.image), changes.get('target', torch.clone)(good.target)
    with pytest.raises(ValueError, match=message):
        CLASSES[kind](image, target, changes.get('spec', good.spec))


def test_what_is_read_from_a_bank_keeps_what_its_generator_has_seen(tmp_path: Path) -> None:
    seen = held('segmentation')
    generator = fit('patch_augment', seen, kind='duplicate')
    copy = PatchDataset.from_dataset(write_bank(generator, 6, tmp_path / 'bank'))
    assert copy.provenance == generator.provenance
    with pytest.raises(LeakageError):
        require_unseen_samples(copy, seen)
    assert seen.provenance is None
