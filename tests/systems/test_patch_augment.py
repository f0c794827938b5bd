import pytest
import torch
from toys import aligned, keys_of, toy_spec, toy_training

from hsiaug.datasets.real.held import class_fractions
from hsiaug.functional.pasting import pairs_that_hold
from hsiaug.systems import TrainingData, patch_augment
from hsiaug.systems.patch_augment import PatchAugment
from hsiaug.trainers import fit_generator

KINDS = ('duplicate', 'flips', 'crops', 'noise', 'cutmix')


@pytest.mark.parametrize('kind', KINDS)
def test_masks_follow_images(kind: str) -> None:
    data = toy_training('segmentation')
    generator = fit_generator('patch_augment', data, {'kind': kind})
    batch = generator.sample(40, seed=3)
    if kind not in ('noise', 'crops'):  # noise moves values over the rule's thresholds, crops interpolate them
        assert aligned(batch)
    known = set(keys_of(data.x))
    copies = sum(key in known for key in keys_of(batch['image']))
    assert copies == 40 if kind == 'duplicate' else copies <= 20


def test_crops_stay_aligned() -> None:
    # Large plateaus: all but the pixels along their borders must agree.
    image = (
        torch.rand(6, 5, 4, 4, generator=torch.Generator().manual_seed(0))
        .repeat_interleave(8, 2)
        .repeat_interleave(8, 3)
    )
    mask = torch.bucketize(image[:, 0].contiguous(), torch.tensor([0.4, 0.7]))
    data = TrainingData(toy_spec('segmentation', size=(32, 32)), image, mask, image[:0], image[:0], mask[:0])
    batch = fit_generator('patch_augment', data, {'kind': 'crops'}).sample(30, seed=1)
    found = torch.bucketize(batch['image'][:, 0].contiguous(), torch.tensor([0.4, 0.7]))
    assert (found == batch['mask']).float().mean() > 0.85
    assert (found != batch['mask'].flip(-1)).float().mean() > 0.3


def test_noise_has_a_tenth_of_the_spread() -> None:
    data = toy_training('segmentation', 1)
    batch = fit_generator('patch_augment', data, {'kind': 'noise'}).sample(400, seed=0)
    spread = (batch['image'] - data.x).std(dim=(0, 2, 3))
    assert torch.allclose(spread, 0.1 * data.x.std(dim=(0, 2, 3)), rtol=0.05)


def test_labels_ask_for_pairs_that_hold_the_class() -> None:
    data = toy_training('segmentation')
    data.y[:] = 0
    data.y[3] = 2
    data.y[5, :4] = 2
    generator = fit_generator('patch_augment', data)
    batch = generator.sample(300, torch.full((300,), 2), seed=0)
    share = (batch['mask'] == 2).float().mean(dim=(1, 2))
    assert set(share.tolist()) == {0.5, 1.0}
    assert (share == 1).float().mean() == pytest.approx(2 / 3, abs=0.08)
    with pytest.raises(ValueError, match='class 1 occurs in none of the 12'):
        generator.sample(2, torch.tensor([1, 1]))


def test_training_frequencies_draw_pairs_evenly() -> None:
    data = toy_training('segmentation')
    generator = fit_generator('patch_augment', data)
    assert isinstance(generator, PatchAugment)
    labels = torch.multinomial(
        generator.class_prior, 6000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    rows = pairs_that_hold(labels, generator.shares(), torch.Generator().manual_seed(1))
    assert torch.bincount(rows, minlength=12).float().div(500).sub(1).abs().max() < 0.15


def test_mistakes() -> None:
    with pytest.raises(ValueError, match='unknown kind'):
        PatchAugment(toy_spec('segmentation'), kind='mirror')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='segmentation'):
        PatchAugment(toy_spec('spectrum'))


def test_shares_are_measured_once_and_anew_for_other_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured in every draw, they took 95 of its 97 ms with 500 pairs of 64 pixels."""
    generator, measured = fit_generator('patch_augment', toy_training('segmentation'), {'kind': 'flips'}), []
    monkeypatch.setattr(
        patch_augment, 'class_fractions', lambda mask, spec: measured.append(mask) or class_fractions(mask, spec)
    )
    for _ in range(3):
        generator.sample(4, torch.zeros(4, dtype=torch.int64), seed=0)
    assert len(measured) == 1
    assert torch.equal(generator.made_of('mask', torch.Tensor.cpu), generator.mask)  # another thing of the same masks
    with torch.no_grad():
        generator.mask.fill_(1)
    with pytest.raises(ValueError, match='class 0 occurs in none'):
        generator.sample(4, torch.zeros(4, dtype=torch.int64), seed=0)
    with torch.inference_mode():  # whose tensors count no changes
        there = PatchAugment(generator.spec, kind='flips')
        there.fit(toy_training('segmentation'))
        assert len(there.sample(3, seed=0)['image']) == 3
