"""Classic augmentation of images with one label each."""

import pytest
import torch
from toys import Toy, mask_of, toy_spec, toy_training

from hsiaug.systems import TrainingData
from hsiaug.systems.patch_augment import PatchAugment
from hsiaug.trainers import fit_generator


def sources(image: torch.Tensor, data: TrainingData) -> torch.Tensor:
    """Which training image each is nearest to, by its sorted values."""
    values, known = (t.flatten(2).sort(dim=-1).values.flatten(1) for t in (image, data.x))
    return torch.cdist(values, known).argmin(dim=1)


@pytest.mark.parametrize('kind', ['duplicate', 'flips', 'noise', 'crops', 'affine'])
def test_images_are_altered_and_keep_their_label(kind: str) -> None:
    data = toy_training('scene')
    generator = fit_generator('patch_augment', data, {'kind': kind})
    labels = torch.arange(30) % 3
    batch = generator.sample(30, labels, seed=0)
    # One in eight is neither flipped nor turned; crops of a few pixels are often the whole.
    copies = int((torch.cdist(batch['image'].flatten(1), data.x.flatten(1)).amin(dim=1) < 1e-2).sum())
    least, most = {'duplicate': (30, 30), 'flips': (1, 12), 'crops': (1, 15)}.get(kind, (0, 0))
    assert least <= copies <= most
    if kind in ('duplicate', 'flips', 'noise'):
        assert torch.equal(data.y[sources(batch['image'], data)], labels)
    assert float(batch['image'].min()) > float(data.x.min()) - 0.5
    counts = torch.bincount(generator.sample(400, seed=1)['label'], minlength=3) / 400
    assert counts == pytest.approx(torch.bincount(data.y, minlength=3) / len(data.y), abs=0.08)


def test_affine_moves_a_mask_with_its_image() -> None:
    toy = Toy('segmentation', 6)
    smooth = torch.nn.functional.interpolate(toy.data['image'][..., :2, :2], size=(8, 8), mode='nearest')
    data = TrainingData(toy.spec, smooth, mask_of(smooth), smooth[:0], smooth[:0], toy.data['mask'][:0])
    batch = fit_generator('patch_augment', data, {'kind': 'affine'}).sample(64, seed=0)
    agree = (mask_of(batch['image']) == batch['mask']).float().mean()
    assert agree > 0.85  # but for interpolated borders
    assert (mask_of(batch['image']) == batch['mask'].roll(4, dims=-1)).float().mean() < 0.7


def test_what_mixes_labels_is_refused() -> None:
    for kind, message in (('cutmix', 'mixes classes in one image'), ('copy_paste', 'is for pairs of dates')):
        with pytest.raises(ValueError, match=message):
            fit_generator('patch_augment', toy_training('scene'), {'kind': kind})
    with pytest.raises(ValueError, match="'change' or 'scene', found 'spectrum'"):
        PatchAugment(toy_spec('spectrum'))
