import math

import pytest
import torch
from torch import Tensor
from toys import CLASSES, Toy

from hsiaug.metrics.frechet import frechet_distance
from hsiaug.models.patch_encoder import PatchEncoder
from hsiaug.trainers.patch_encoder import train_patch_encoder

IGNORE = 255
K = len(CLASSES)


def blocks(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Toy pairs, each pixel enlarged to 2 x 2, in a unit far from one."""
    data = Toy('segmentation', n, seed).data
    image, mask = (part.repeat_interleave(2, -1).repeat_interleave(2, -2) for part in (data['image'], data['mask']))
    return 1e4 * image, mask


TRAIN, TEST = blocks(40, 0), blocks(60, 1)


@pytest.fixture(scope='module')
def encoder() -> PatchEncoder:
    image, mask = TRAIN[0], TRAIN[1].clone()
    mask[:, :3] = IGNORE
    return train_patch_encoder(image, mask, K, IGNORE, steps=200)


def test_encoder_learns_classes(encoder: PatchEncoder) -> None:
    right = encoder.logits(TEST[0]).argmax(dim=1) == TEST[1]
    assert float(right.float().mean()) > 0.8
    features = encoder(TEST[0])
    assert features.shape == (60, encoder.num_features)
    assert not features.requires_grad
    alone = torch.cat([encoder(one[None]) for one in TEST[0]])
    torch.testing.assert_close(features, alone, rtol=1e-4, atol=1e-5)


def test_features_see_how_things_lie(encoder: PatchEncoder) -> None:
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    scattered = TEST[0].flatten(2)[:, :, order].reshape(TEST[0].shape)  # every band keeps its histogram
    known = encoder(TRAIN[0])
    assert frechet_distance(known, encoder(scattered)) > 2 * frechet_distance(known, encoder(TEST[0]))


def test_a_seed_means_one_encoder() -> None:
    state = torch.get_rng_state()
    a, b, c = (train_patch_encoder(*TRAIN, K, seed=seed, steps=3)(TEST[0]) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_ignored_pixels_teach_nothing() -> None:
    image, mask = TRAIN
    hidden, wrong = mask.clone(), mask.clone()
    hidden[:, :8] = wrong[:, :8] = IGNORE
    wrong[:, :4] = -1
    a, b = (train_patch_encoder(image, part, K, IGNORE, steps=3) for part in (hidden, wrong))
    assert torch.equal(a(TEST[0]), b(TEST[0]))


def test_what_cannot_be_learnt_from() -> None:
    image, mask = TRAIN
    with pytest.raises(ValueError, match='none of 10240 pixels'):
        train_patch_encoder(image, torch.full_like(mask, IGNORE), K, IGNORE)
    with pytest.raises(ValueError, match='not finite'):
        train_patch_encoder(image.where(mask[:, None] != 0, math.inf), mask, K, IGNORE)
    with pytest.raises(ValueError, match='steps'):
        train_patch_encoder(image, mask, K, IGNORE, steps=0)
