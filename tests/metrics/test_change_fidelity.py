import math
from dataclasses import replace

import pytest
import torch
from changes import make_changes
from torch import Tensor

from hsiaug.metrics.change_fidelity import ChangeFidelity, change_fidelity
from hsiaug.metrics.patches import patch_fidelity

TRAIN, TEST, FAKE = ((data.x, data.y) for data in (make_changes(60, 0), make_changes(40, 1), make_changes(60, 2)))
SPEC = make_changes(4).spec
Pair = tuple[Tensor, Tensor]


def pooled(image: Tensor) -> Tensor:
    """A plain encoder: mean and spread of each band."""
    return torch.cat([image.mean(dim=(2, 3)), image.std(dim=(2, 3))], dim=1)


def compared(fake: Pair) -> ChangeFidelity:
    return change_fidelity(TRAIN, TEST, fake, SPEC, pooled)


@pytest.fixture(scope='module')
def good() -> ChangeFidelity:
    return compared(FAKE)


def test_the_reference_is_what_a_perfect_generator_gets(good: ChangeFidelity) -> None:
    for part in (good.first, good.second, good.both):
        assert part.real_reference is not None
        assert part.fid_image < 3 * part.real_reference.fid_image
        assert part.msad == pytest.approx(0, abs=0.05)
        assert part.std_ratio == pytest.approx(1, abs=0.15)
    assert good.both.alignment == pytest.approx(1, abs=0.1)
    assert good.both.class_share_error < 0.05
    assert good.differences.unchanged < 2 * good.real_differences.unchanged + 0.05


def test_each_date_is_compared_with_its_own(good: ChangeFidelity) -> None:
    image, mask = FAKE
    one_date = replace(SPEC, kind='segmentation')
    sides = [(x[:, 1], y[:, 0]) for x, y in (TRAIN, TEST, FAKE)]
    assert good.second == patch_fidelity(sides[0], sides[1], sides[2], one_date, pooled)
    noisy = image.clone()
    noisy[:, 1] += 60 * torch.randn(noisy[:, 1].shape, generator=torch.Generator().manual_seed(0))
    found = compared((noisy, mask))
    assert found.first == good.first
    assert found.second.fid_image > 5 * good.second.fid_image
    assert found.second.std_ratio > 1.1


def test_dates_that_do_not_belong_together_show_in_both_alone(good: ChangeFidelity) -> None:
    image, mask = FAKE
    apart = torch.stack([image[:, 0], image[:, 1].roll(1, dims=0)], dim=1)
    found = compared((apart, mask))
    assert found.first == good.first
    assert found.second.fid_image == pytest.approx(good.second.fid_image)
    assert found.both.fid_image > 1.5 * good.both.fid_image
    assert found.differences.unchanged > 3 * good.differences.unchanged


def test_masks_of_other_changes_show_in_alignment(good: ChangeFidelity) -> None:
    image, mask = FAKE
    found = compared((image, mask.roll(1, dims=0)))
    assert found.both.alignment < good.both.alignment - 0.2
    assert found.both.fid_mask == pytest.approx(good.both.fid_mask)
    nothing = compared((image, mask * 0))
    assert nothing.both.class_share_error == pytest.approx(float((TEST[1] == 1).double().mean()))
    assert math.isnan(nothing.differences.changed)


def test_bad_pairs() -> None:
    image, mask = FAKE
    with pytest.raises(ValueError, match="kind 'change', found 'segmentation'"):
        change_fidelity(TRAIN, TEST, FAKE, replace(SPEC, kind='segmentation'), pooled)
    for fake in ((image[:, :1], mask), (image[:, :, :4], mask), (image, mask[:, 0]), (image, mask[:-1])):
        with pytest.raises(ValueError, match=r'fake must be images \(n, 2, 8, H, W\) and masks \(n, 1, H, W\), found'):
            compared(fake)
