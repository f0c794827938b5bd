import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from hsiaug.models import SiamCRNN
from hsiaug.models.siam_crnn import ConvLSTM


def test_the_recurrent_layer_is_a_convolutional_lstm() -> None:
    torch.manual_seed(0)
    layer = ConvLSTM(3, 4)
    x = torch.randn(2, 3, 3, 6, 5)
    # By the book: one convolution of the input beside the state, from a state and a cell of zeros.
    weight = torch.cat([layer.input.weight, layer.state.weight], dim=1)
    state = cell = torch.zeros(2, 4, 6, 5)
    for date in x.unbind(dim=1):
        gates = conv2d(torch.cat([date, state], dim=1), weight, layer.input.bias, padding=1)
        put, keep, show, value = gates.chunk(4, dim=1)
        cell = keep.sigmoid() * cell + put.sigmoid() * value.tanh()
        state = show.sigmoid() * cell.tanh()
    assert torch.allclose(layer(x), state, atol=1e-6)
    assert not torch.allclose(layer(x), layer(x.flip(1)), atol=1e-3)


def test_size_is_that_of_its_parts() -> None:
    model = SiamCRNN(3)
    size = sum(p.numel() for p in model.encoder.parameters())
    assert size == pytest.approx(11.18e6, rel=0.001)  # ResNet-18 without its classifier
    size += sum((inputs + 128) * 512 * 9 + 512 for inputs in (64, 128, 256, 512))
    size += 3 * (128 * 128 * 9 + 256) + 128 * 2 + 2
    assert sum(p.numel() for p in model.parameters()) == size


@pytest.mark.parametrize(('backbone', 'strides'), [('resnet_tiny', [4, 8, 8, 8]), ('resnet18', [4, 8, 16, 16])])
def test_scales_of_the_backbones(backbone: str, strides: list[int]) -> None:
    features = SiamCRNN(6, backbone=backbone, channels=8).encoder(torch.rand(1, 6, 64, 64))[2:]
    assert [64 // feature.shape[-1] for feature in features] == strides


def test_the_large_backbone_of_the_study_can_be_built() -> None:
    model = SiamCRNN(10, backbone='resnet101', channels=8)
    assert model.encoder.out_channels[2:] == [256, 512, 1024, 2048]
    assert isinstance(model.encoder.conv1, nn.Conv2d)
    assert model.encoder.conv1.in_channels == 10


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="such as 'resnet18' or 'resnet_tiny', found 'mit_b0'"):
        SiamCRNN(3, backbone='mit_b0')
    with pytest.raises(ValueError, match="SiamCRNN: 'resnet_tiny' has no weights"):
        SiamCRNN(3, backbone='resnet_tiny', encoder_weights='imagenet')
    with pytest.raises(ValueError, match=r"SiamCRNN: unknown encoder 'resnet51'; choose from \['resnet101'"):
        SiamCRNN(3, backbone='resnet51')
