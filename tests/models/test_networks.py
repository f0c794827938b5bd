"""What every network that labels pixels promises: any sides, padding that moves nothing, no idle parameter."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hsiaug.models import ChangeFormerV3, ChangeFormerV6, PFSegNet, SegFormer, SiamCRNN
from hsiaug.trainers import change_detection, segmentation

BANDS = 5
NETWORKS: dict[str, Callable[..., Any]] = {
    'changeformer-v3': lambda **options: ChangeFormerV3(BANDS, encoder='mit_tiny', channels=16, **options),
    'changeformer-v6': lambda **options: ChangeFormerV6(BANDS, encoder='mit_tiny', channels=16, **options),
    'siamcrnn': lambda **options: SiamCRNN(BANDS, backbone='resnet_tiny', channels=16, **options),
    'segformer': lambda **options: SegFormer(BANDS, 2, 'mit_tiny', decoder_channels=16, **options),
    'pfsegnet': lambda **options: PFSegNet(BANDS, 2, 'resnet_tiny', channels=16, **options),
}
LARGER: dict[str, Callable[..., Any]] = {
    'siamcrnn, resnet18': lambda: SiamCRNN(BANDS, backbone='resnet18', channels=8),
    'pfsegnet, resnet18': lambda: PFSegNet(BANDS, 2, 'resnet18', channels=16),
    'pfsegnet, resnet50': lambda: PFSegNet(BANDS, 2, 'resnet50', channels=16),
}


def made(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return {**NETWORKS, **LARGER}[name](**options)


def images(network: nn.Module, height: int, width: int, n: int = 2) -> torch.Tensor:
    dates = () if isinstance(network, SegFormer | PFSegNet) else (2,)
    return torch.rand(n, *dates, BANDS, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.parametrize(
    ('height', 'width', 'upsampling'), [(16, 16, 1), (8, 12, 4), (50, 37, 1), (70, 36, 1), (13, 21, 2)]
)
def test_sides_of_any_length(name: str, height: int, width: int, upsampling: int) -> None:
    network = made(name, upsampling=upsampling).eval()
    image = images(network, height, width)
    logits = network(image)
    assert logits.shape == (2, 2, height, width)
    assert torch.isfinite(logits).all()
    if isinstance(network, ChangeFormerV6):
        again, sides = network.forward_with_sides(image)
        assert [tuple(side.shape) for side in sides] == [(2, 2, height, width)] * 4
        assert not any(torch.equal(side, logits) for side in sides)
    elif isinstance(network, PFSegNet):
        again, edges = network.forward_with_edges(image)
        assert [tuple(edge.shape) for edge in edges] == [(2, 1, height, width)] * 3
    else:
        return
    assert torch.equal(again, logits)


@pytest.mark.parametrize('name', NETWORKS)
def test_padding_lies_at_the_far_ends_and_leaves_logits_where_they_were(name: str) -> None:
    network = made(name).eval()
    height = 40 if name == 'pfsegnet' else 48 if name == 'siamcrnn' else 64  # what the cut image is padded to
    image, cut = images(network, height, 32, 1), height - 5
    image[..., cut:, :] = image[..., cut - 1 : cut, :]  # as padding makes it
    assert torch.allclose(network(image[..., :cut, :]), network(image)[..., :cut, :], atol=1e-5)


@pytest.mark.parametrize('name', [*NETWORKS, *LARGER])
def test_every_parameter_learns(name: str) -> None:
    network = made(name)
    side = 64 if 'former' in name else 32  # attention of one place to itself alone teaches no query
    image, mask = images(network, side, side), torch.zeros(2, side, side, dtype=torch.int64)
    mask[:, 10:20, 5:25] = 1
    if image.ndim == 5:
        loss = change_detection.training_loss(network, image, mask[:, None])
    else:
        loss, _ = segmentation.training_loss(network, image, mask)
    loss.backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
