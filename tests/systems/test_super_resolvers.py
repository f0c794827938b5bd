from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from hsiaug.functional.degradation import FACTORS, upsample
from hsiaug.systems.msrresgan.network import (
    SRCNN,
    MSRResNet,
    Network,
    ResidualNetwork,
    SRDiscriminator,
    SRResNet,
    gradient_magnitude,
    super_resolver,
)  # fmt: skip

C = 7


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def alive(network: nn.Module) -> nn.Module:
    """The network with weights in its zero layers, and in evaluation."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.1)
    return network.eval()


def test_layers_are_those_of_the_text() -> None:
    network = MSRResNet(C, 5)
    layers = convolutions(network)
    assert len(layers) == 21
    assert {layer.kernel_size for layer in layers} == {(3, 3)}
    assert [layer.out_channels for layer in layers].count(64) == 20
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 20
    assert len(network.residual.blocks) == 9
    one = 9 * C * 64 + 19 * 9 * 64 * 64 + 20 * 2 * 64 + 9 * 64 * C + C
    assert parameters(network) == one
    assert parameters(MSRResNet(C, 5, gradient=True)) == 2 * one + 64  # θ: one 1 x 1 kernel per feature


def test_baselines_are_those_published() -> None:
    assert [(m.kernel_size[0], m.out_channels) for m in convolutions(SRCNN(C, 3))] == [(9, 64), (1, 32), (5, C)]
    assert parameters(SRCNN(C, 3)) == (81 * C + 1) * 64 + (64 + 1) * 32 + (25 * 32 + 1) * C
    srgan = SRResNet(C, 4)
    assert len(convolutions(srgan)) == 1 + 2 * 16 + 1 + 2 + 1
    assert [m.upscale_factor for m in srgan.modules() if isinstance(m, nn.PixelShuffle)] == [2, 2]
    discriminator = SRDiscriminator(C, (64, 64))
    layers = convolutions(discriminator)
    assert [m.out_channels for m in layers] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [m.stride[0] for m in layers] == [1, 2, 1, 2, 1, 2, 1, 2]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in discriminator.modules()) == 7
    assert [m.out_features for m in discriminator.modules() if isinstance(m, nn.Linear)] == [1024, 1]


@pytest.mark.parametrize('size', [(16, 16), (20, 12), (5, 5)])
def test_discriminator_takes_any_size(size: tuple[int, int]) -> None:
    assert SRDiscriminator(C, size, width=4)(torch.rand(3, C, *size)).shape == (3,)


@pytest.mark.parametrize('factor', FACTORS)
@pytest.mark.parametrize('name', get_args(Network))
def test_any_factor(name: Network, factor: int) -> None:
    network = super_resolver(name, C, factor, width=4, blocks=1)
    assert network(torch.rand(2, C, 5, 6)).shape == (2, C, 5 * factor, 6 * factor)


@pytest.mark.parametrize('factor', [2, 3, 4, 5])
@pytest.mark.parametrize('name', get_args(Network))
def test_nothing_beyond_the_margin_counts(name: Network, factor: int) -> None:
    network = alive(super_resolver(name, 2, factor, width=4, blocks=1)).double()
    margin = network.margin
    assert isinstance(margin, int)
    side = 2 * margin + 5
    low = torch.rand(1, 2, 3, side, dtype=torch.float64)
    changed = low.clone()
    changed[..., :2] += 1  # the pixels before number 2 + margin depend on them, that one does not
    with torch.no_grad():
        difference = (network(changed) - network(low)).abs().amax(dim=(0, 1, 2)).view(side, factor).amax(dim=1)
    assert float(difference[2 + margin :].max()) < 1e-12
    assert float(difference[: max(3, margin - 2)].min()) > 1e-12  # and the margin is not idle


def test_training_starts_from_the_interpolated_image() -> None:
    low = torch.rand(2, C, 6, 6)
    for name in ('msrresnet', 'msrresgan'):
        assert torch.equal(super_resolver(name, C, 2, width=4)(low), upsample(low, 2))  # type: ignore[arg-type]


def test_gradient_features_join_by_theta() -> None:
    network = alive(MSRResNet(C, 2, width=4, blocks=1, gradient=True))
    assert isinstance(network, MSRResNet)
    assert network.gradient is not None
    assert network.theta is not None
    low = torch.rand(2, C, 6, 6)
    image = upsample(low, 2)
    theta = torch.tensor([0.5, -1.0, 0.0, 2.0])
    network.theta.weight.data.copy_(theta.view(4, 1, 1, 1))
    res, grad = network.residual.features(image), network.gradient.features(gradient_magnitude(image))
    expected = image + network.residual.last(res + theta.view(4, 1, 1) * grad)
    assert torch.allclose(network(low), expected, atol=1e-6)
    assert torch.equal(network.learned_gradient(image), network.gradient(gradient_magnitude(image)))
    with pytest.raises(ValueError, match='without a gradient network'):
        MSRResNet(C, 2, width=4).learned_gradient(low)


def test_skips_carry_the_image_and_the_first_features() -> None:
    network = alive(ResidualNetwork(C, width=4, blocks=1))
    assert isinstance(network, ResidualNetwork)
    image = torch.rand(1, C, 8, 8)
    for module in (network.blocks, network.fusion):
        for parameter in module.parameters():
            parameter.data.zero_()
    first = torch.relu(network.first(image))
    assert torch.allclose(network.features(image), first)
    assert torch.allclose(network(image), image + network.last(first))


def test_gradient_of_a_plane() -> None:
    row, column = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing='ij')
    plane: Tensor = (3 * row + 4 * column).expand(1, 2, 6, 6)
    assert torch.allclose(gradient_magnitude(plane)[..., 1:-1, 1:-1], torch.full((1, 2, 4, 4), 5.0))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="unknown super-resolution network 'edsr'; choose from"):
        super_resolver('edsr', C, 2)  # type: ignore[arg-type]
    for name in get_args(Network):
        with pytest.raises(ValueError, match='found 1'):
            super_resolver(name, C, 1)
