import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from hsiaug.metrics.patches import PatchFidelity, class_moments, class_pixels, patch_fidelity
from hsiaug.samples import SampleSpec

IGNORE = 255
SPEC = SampleSpec('segmentation', 6, ('a', 'b', 'c'), size=(16, 16), ignore_index=IGNORE)
Pair = tuple[Tensor, Tensor]


def pairs(n: int, seed: int, noise: float = 0.05) -> Pair:
    """Blocks of 4 x 4 pixels; each class is a bump at its own bands, under a light of its own for each patch."""
    rng = torch.Generator().manual_seed(seed)
    mask = torch.randint(3, (n, 4, 4), generator=rng).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    bump = torch.exp(-((torch.arange(6.0) - torch.tensor([[0.5], [2.5], [4.5]])) ** 2))
    light = 0.7 + 0.6 * torch.rand(n, 1, 1, 1, generator=rng)
    image = light * (0.2 + bump[mask].movedim(-1, 1)) + noise * torch.randn(n, 6, 16, 16, generator=rng)
    return image, mask


def pooled(image: Tensor) -> Tensor:
    """A plain encoder: mean and spread of each band."""
    return torch.cat([image.mean(dim=(2, 3)), image.std(dim=(2, 3))], dim=1)


TRAIN, TEST, FAKE = pairs(60, 0), pairs(40, 1), pairs(80, 2)


def compared(fake: Pair, train: Pair = TRAIN, test: Pair = TEST) -> PatchFidelity:
    return patch_fidelity(train, test, fake, SPEC, pooled)


@pytest.fixture(scope='module')
def good() -> PatchFidelity:
    return compared(FAKE)


def test_the_reference_is_what_a_perfect_generator_gets(good: PatchFidelity) -> None:
    reference = good.real_reference
    assert reference is not None
    assert good.fid_image < 3 * reference.fid_image
    assert good.msad == pytest.approx(0, abs=0.02)
    assert good.std_ratio == pytest.approx(1, abs=0.1)
    assert min(good.precision, good.recall, good.coverage) > 0.8
    assert good.class_share_error < 0.1
    assert good.alignment == pytest.approx(1, abs=0.05)
    assert reference.alignment == pytest.approx(1, abs=0.05)


def test_numbers_are_stated(good: PatchFidelity) -> None:
    train, reference = good.against_train, good.real_reference
    assert train is not None
    assert reference is not None
    assert [(x.count, x.compared, x.real_count) for x in (good, train, reference)] == [
        (80, 60, 40),
        (80, 60, 60),
        (60, 60, 40),
    ]
    assert good.dimensions == (12, 18)
    assert asdict(good)['real_reference']['count'] == 60


def test_identical_sets_have_no_distance() -> None:
    found = compared(TEST, train=TEST)
    assert found.fid_image == pytest.approx(0, abs=1e-6)
    assert found.fid_mask == pytest.approx(0, abs=1e-6)
    assert found.msad == pytest.approx(0, abs=1e-6)
    assert found.class_share_error == found.cooccurrence_error == 0
    assert (found.precision, found.recall, found.coverage, found.std_ratio) == (1, 1, 1, 1)
    # All three comparisons are of the same two sets.
    assert found.real_reference == found.against_train == replace(found, real_reference=None, against_train=None)


def test_a_shuffled_pairing_is_found_out_by_alignment_alone(good: PatchFidelity) -> None:
    image, mask = FAKE
    shuffled = compared((image, mask.roll(1, dims=0)))
    assert shuffled.alignment == pytest.approx(1 / 3, abs=0.06)
    assert shuffled.real_reference == good.real_reference  # the synthetic pairs have no part in it
    for field in ('fid_image', 'precision', 'class_share_error', 'cooccurrence_error'):
        assert getattr(shuffled, field) == getattr(good, field)


def test_alignment_falls_with_the_shift(good: PatchFidelity) -> None:
    image, mask = FAKE
    scores = [good.alignment, *(compared((image, mask.roll(by, dims=2))).alignment for by in (1, 2))]
    assert scores[0] - scores[1] > 0.1
    assert scores[1] - scores[2] > 0.1


def test_each_fault_shows_where_it_should(good: PatchFidelity) -> None:
    image, mask = FAKE
    noisy = compared((image + 0.5 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)), mask))
    assert noisy.fid_image > 5 * good.fid_image
    assert noisy.precision < 0.5
    assert noisy.std_ratio > 1.3
    assert noisy.fid_mask == good.fid_mask
    single = compared((image[:1].expand_as(image).clone(), mask[:1].expand_as(mask).clone()))
    assert single.recall < 0.2
    assert single.fid_mask > 5 * good.fid_mask
    bands = compared((image.flip(1), mask))
    assert bands.msad > 0.3
    assert bands.alignment < 0.5
    fine = torch.randint(3, mask.shape, generator=torch.Generator().manual_seed(0))
    assert compared((image, fine)).cooccurrence_error > good.cooccurrence_error + 0.3


def test_ignored_pixels_and_missing_classes() -> None:
    image, mask = (part.clone() for part in FAKE)
    image = image.where(mask[:, None] != 2, 9.0)
    mask[mask == 2] = IGNORE
    found = compared((image, mask))
    assert [math.isnan(angle) for angle in found.msad_per_class] == [False, False, True]
    assert found.msad < 0.02
    assert found.alignment == pytest.approx(1, abs=0.05)  # over the two classes that both hold
    assert found.class_share_error == pytest.approx(float((TEST[1] == 2).double().mean()), abs=0.05)


def test_moments_and_pixels_of_classes() -> None:
    image, mask = FAKE[0] + 1e4, FAKE[1].clone()  # far from zero, where naive sums of squares lose the spread
    mask[:, 0] = IGNORE
    mean, spread = class_moments(image, mask, 3, IGNORE)
    for label in range(3):
        mine = image.movedim(1, -1)[mask == label].double()
        torch.testing.assert_close(mean[label], mine.mean(dim=0))
        torch.testing.assert_close(spread[label], mine.std(dim=0, correction=0), rtol=1e-5, atol=0)
    spectra, labels = class_pixels((image, mask), 3, IGNORE, 50)
    assert len(spectra) == len(labels) == 150
    near = torch.cdist(torch.from_numpy(spectra).double(), mean).argmin(dim=1)
    assert (near.numpy() == labels).mean() > 0.9


def test_few_test_pairs_leave_neighbours_out() -> None:
    found = compared(FAKE, test=(TEST[0][:5], TEST[1][:5]))
    assert all(math.isnan(x) for x in (found.precision, found.recall, found.density, found.coverage))
    assert math.isfinite(found.fid_image)
    assert found.against_train is not None
    assert found.against_train.precision > 0.8


def test_bad_pairs() -> None:
    image, mask = FAKE
    broken = image.clone()
    broken[3, 0, 0, 0] = math.nan
    for fake, message in (
        ((broken, mask), '1 of 80 fake images'),
        ((image[:, :4], mask), r'fake must be images \(n, 6, H, W\).*found \(80, 4, 16, 16\)'),
        ((image, mask[:-1]), r'\(79, 16, 16\)'),
        ((image[:1], mask[:1]), 'fake holds 1 pairs'),
        ((image, mask + 1), 'found .3.'),
    ):
        with pytest.raises(ValueError, match=message):
            compared(fake)
    with pytest.raises(ValueError, match="kind 'segmentation', found 'scene'"):
        patch_fidelity(TRAIN, TEST, FAKE, replace(SPEC, kind='scene'), pooled)
    with pytest.raises(ValueError, match='fewer than two classes'):
        compared(FAKE, train=(TRAIN[0], TRAIN[1] * 0))
