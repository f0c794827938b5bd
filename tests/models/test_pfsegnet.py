import pytest
import torch

from hsiaug.models import PFSegNet
from hsiaug.models.pfsegnet import PointFlow


def tiny(bands: int = 6, classes: int = 3, backbone: str = 'resnet_tiny', **options: int) -> PFSegNet:
    torch.manual_seed(0)
    return PFSegNet(bands, classes, backbone, channels=16, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize('backbone', ['resnet_tiny', 'resnet18'])
def test_the_encoder_is_dilated_to_stride_eight(backbone: str) -> None:
    features = tiny(backbone=backbone).encoder(torch.rand(1, 6, 64, 64))
    assert [64 // feature.shape[-1] for feature in features] == [1, 2, 4, 8, 8, 8]


def test_semantics_flow_at_chosen_points_only() -> None:
    torch.manual_seed(0)
    flow = PointFlow(8, match_channels=4, grid=2, smoothing=3, edge_points=5)
    coarse, fine = torch.rand(2, 8, 6, 6), torch.rand(2, 8, 12, 12)
    refined, edges = flow(coarse, fine)
    changed = ((refined - fine).abs().sum(dim=1) > 0).flatten(1)
    assert ((changed.sum(dim=1) >= 5) & (changed.sum(dim=1) <= 2 * 2 + 5)).all()
    best = edges.flatten(1).topk(5).indices
    assert changed.gather(1, best).all()  # the five likeliest edges are among them
    # One of the salient points lies in each quarter of the patch.
    assert all(part.any() for half in changed.view(2, 2, 6, 12)[0] for part in half.split(6, dim=-1))


def test_a_point_takes_the_features_of_the_points_it_resembles() -> None:
    # Two kinds of points; coarse features of the kinds are 1 and 5.
    kind = torch.tensor([0, 1, 1, 0, 1, 0])
    code = 20 * torch.nn.functional.one_hot(kind, 2).T.reshape(1, 2, 2, 3).float()
    value = torch.where(kind == 0, 1.0, 5.0).reshape(1, 1, 2, 3)
    points = torch.tensor([[0, 1, 3, 4]])
    found = PointFlow._flow(code, code, value, points)
    assert found.flatten().tolist() == pytest.approx([1, 5, 0, 1, 5, 0])
    # A place that is chosen twice counts once where it lands.
    twice = PointFlow._flow(code, code, value, torch.tensor([[0, 1, 1, 3, 4]]))
    assert torch.allclose(twice, found, atol=1e-4)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="such as 'resnet50' or 'resnet_tiny', found 'mit_b0'"):
        PFSegNet(3, 2, 'mit_b0')
    with pytest.raises(ValueError, match=r"unknown encoder 'resnet51'; choose from \['resnet101'"):
        PFSegNet(3, 2, 'resnet51')
    with pytest.raises(ValueError, match="'resnet_tiny' has no weights"):
        PFSegNet(3, 2, 'resnet_tiny', encoder_weights='imagenet')
