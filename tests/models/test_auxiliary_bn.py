import pytest
import torch
from torch import Tensor, nn

from hsiaug.models import (
    AuxiliaryBatchNorm,
    SegFormer,
    add_auxiliary_bn,
    drop_auxiliary_bn,
    synthetic_rows,
)
from hsiaug.models.siam_crnn import SiamCRNN


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))


def batch(n: int, offset: float, seed: int) -> Tensor:
    return torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) + offset


def test_main_statistics_see_real_samples_only() -> None:
    plain, split = small(), add_auxiliary_bn(small())
    real, fake = batch(4, 0.0, 1), batch(6, 50.0, 2)
    flags = torch.tensor([True, False, True, True, False, True, False, True, False, True])
    mixed = torch.empty(10, 3, 6, 6)
    mixed[~flags], mixed[flags] = real, fake
    expected = plain(real)
    with synthetic_rows(split, flags):
        found = split(mixed)
    assert torch.allclose(found[~flags], expected, atol=1e-5)
    layer = split[1]
    assert isinstance(layer, AuxiliaryBatchNorm)
    assert torch.allclose(layer.main.running_mean, plain[1].running_mean, atol=1e-6)  # type: ignore[arg-type, union-attr]
    assert torch.allclose(layer.main.running_var, plain[1].running_var, atol=1e-6)  # type: ignore[arg-type, union-attr]
    aside = small()
    aside(fake)
    assert torch.allclose(layer.auxiliary.running_mean, aside[1].running_mean, atol=1e-5)  # type: ignore[arg-type, union-attr]
    assert (layer.auxiliary.running_mean - layer.main.running_mean).abs().max() > 0.1  # type: ignore[operator]
    assert int(layer.main.num_batches_tracked) == int(layer.auxiliary.num_batches_tracked) == 1  # type: ignore[arg-type]


def test_gradients_reach_the_affine_parameters_of_their_own_side_and_shared_layers_from_both() -> None:
    split = add_auxiliary_bn(small())
    flags = torch.tensor([False, False, True, True])
    with synthetic_rows(split, flags):
        out = split(torch.cat([batch(2, 0.0, 1), batch(2, 3.0, 2)]))
    out[flags].square().sum().backward()
    assert float(split[1].auxiliary.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]
    assert float(split[1].main.weight.grad.abs().sum()) == 0  # type: ignore[union-attr]
    assert float(split[0].weight.grad.abs().sum()) > 0  # type: ignore[operator, union-attr]


def test_without_synthetic_samples_nothing_changes_to_the_bit_and_evaluation_takes_the_main_one() -> None:
    plain, split = small(), add_auxiliary_bn(small())
    for step in range(3):
        x = batch(5, 0.5, step)
        with synthetic_rows(split, None if step else torch.zeros(5, dtype=torch.bool)):
            assert torch.equal(plain(x), split(x))
    with synthetic_rows(split, torch.ones(5, dtype=torch.bool)):
        split(batch(5, 9.0, 7))
    plain.eval()
    split.eval()
    x = batch(4, 0.0, 9)
    with synthetic_rows(split, torch.ones(4, dtype=torch.bool)):
        assert torch.equal(plain(x), split(x))
    dropped = drop_auxiliary_bn(split)
    assert dropped.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(dropped.state_dict()[key], value) for key, value in plain.state_dict().items())


def test_a_single_value_takes_running_statistics() -> None:
    norm = AuxiliaryBatchNorm(nn.BatchNorm1d(2))
    norm.main.running_mean.fill_(1.0)  # type: ignore[union-attr]
    norm.main.running_var.fill_(4.0)  # type: ignore[union-attr]
    x = torch.tensor([[5.0, 3.0], [0.0, 1.0], [2.0, 5.0]])
    norm.synthetic = torch.tensor([False, True, True])
    out = norm(x)
    assert torch.allclose(out[0], torch.tensor([2.0, 1.0]), atol=1e-4)
    assert torch.allclose(out[1:].abs(), torch.ones(2, 2), atol=1e-4)
    assert norm.main.running_mean.tolist() == [1.0, 1.0]  # type: ignore[union-attr]


def test_networks_and_mistakes() -> None:
    torch.manual_seed(0)
    network = add_auxiliary_bn(SegFormer(3, 2, 'mit_tiny', decoder_channels=16, mapping=False))
    flags = torch.tensor([True, False, False])
    with synthetic_rows(network, flags):
        network(torch.rand(3, 3, 32, 32))
    assert all(m.synthetic is None for m in network.modules() if isinstance(m, AuxiliaryBatchNorm))
    with pytest.raises(ValueError, match='auxiliary batch normalisation already'):
        add_auxiliary_bn(network)
    with pytest.raises(ValueError, match='Linear has no batch normalisation'):
        add_auxiliary_bn(nn.Linear(2, 2))
    folded = add_auxiliary_bn(SiamCRNN(3, 2, 'resnet_tiny', channels=16))
    with (
        pytest.raises(ValueError, match='3 flags for 6 rows; a network that folds dates'),
        synthetic_rows(folded, flags),
    ):
        folded(torch.rand(3, 2, 3, 32, 32))
