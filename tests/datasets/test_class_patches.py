import pytest
import torch
from toys import toy_spec

from hsiaug.datasets.real.class_patches import Rule, class_patches

IGNORE = 255


def coordinates(n: int = 2, side: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose bands are number, row and column, so that a patch says where it is from."""
    number, row, column = torch.meshgrid(torch.arange(n), torch.arange(side), torch.arange(side), indexing='ij')
    image = torch.stack([number, row, column, row + column, row * 0], dim=1).float()
    return image, torch.randint(3, (n, side, side), generator=torch.Generator().manual_seed(0))


SPEC = toy_spec('segmentation', ignore_index=IGNORE)


@pytest.mark.parametrize('size', [3, 4])
def test_label_is_that_of_the_centre(size: int) -> None:
    image, mask = coordinates()
    mask[0, :4] = IGNORE
    x, y, spec = class_patches(image, mask, SPEC, size, stride=1)
    assert (spec.kind, spec.size, spec.classes, spec.ignore_index) == ('scene', (size, size), SPEC.classes, None)
    number, row, column = x[:, :3, size // 2, size // 2].long().unbind(1)
    assert torch.equal(mask[number, row, column], y)
    assert (y != IGNORE).all()
    windows = mask.unfold(1, size, 1).unfold(2, size, 1)[..., size // 2, size // 2]
    assert len(y) == int((windows != IGNORE).sum())
    steps = torch.arange(size) - size // 2
    assert torch.equal(x[:, 1].long(), (row[:, None] + steps)[:, :, None].expand(-1, -1, size))
    assert torch.equal(x[:, 2].long(), (column[:, None] + steps)[:, None].expand(-1, size, -1))


def test_label_is_the_dominant_one() -> None:
    image, mask = coordinates(1, 3)
    mask[0] = torch.tensor([[IGNORE, IGNORE, IGNORE], [IGNORE, 2, 1], [1, 0, IGNORE]])
    assert class_patches(image, mask, SPEC, 3, 'dominant')[1].tolist() == [1]
    assert class_patches(image, mask, SPEC, 3, 'centre')[1].tolist() == [2]
    mask[0, 2, 0] = IGNORE
    assert class_patches(image, mask, SPEC, 3, 'dominant')[1].tolist() == [0]  # of a tie, the lower


def test_each_class_is_capped_and_drawn_by_the_seed() -> None:
    image, mask = coordinates()
    mask[0, 4, 4] = IGNORE
    draws = [class_patches(image, mask, SPEC, 3, stride=1, per_class=5, seed=s) for s in (0, 0, 1)]
    assert torch.bincount(draws[0][1]).tolist() == [5, 5, 5]
    assert torch.equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][0], draws[2][0])
    assert len(class_patches(image, mask, SPEC, 4)[1]) <= 2 * 9  # a stride of half the size


@pytest.mark.parametrize('rule', ['centre', 'dominant'])
def test_an_ignored_class_labels_nothing(rule: Rule) -> None:
    image, mask = coordinates()
    _, y, spec = class_patches(image, mask, toy_spec('segmentation', ignore_index=0), 3, rule, stride=1)
    assert set(y.tolist()) == {1, 2}
    assert spec.ignore_index == 0


def test_mistakes() -> None:
    image, mask = coordinates()
    with pytest.raises(ValueError, match="found 'scene' and 'centre'"):
        class_patches(image, mask, toy_spec('scene'), 3)
    with pytest.raises(ValueError, match='size 10 must lie in 1 to 9'):
        class_patches(image, mask, SPEC, 10)
    with pytest.raises(ValueError, match='no patch of 3 x 3 pixels'):
        class_patches(image, torch.full_like(mask, IGNORE), SPEC, 3)
