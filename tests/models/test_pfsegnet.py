import pytest
import torch

from hsiaug.models import PFSegNet
from hsiaug.models.pfsegnet import PointFlow
from hsiaug.trainers.segmentation import training_loss


def tiny(bands: int = 6, classes: int = 3, backbone: str = 'resnet_tiny', **options: int) -> PFSegNet:
    torch.manual_seed(0)
    return PFSegNet(bands, classes, backbone, channels=16, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize('backbone', ['resnet_tiny', 'resnet18', 'resnet50'])
def test_every_parameter_learns_from_a_small_patch(backbone: str) -> None:
    model = tiny(backbone=backbone)
    mask = torch.zeros(2, 32, 32, dtype=torch.int64)
    mask[:, 10:20, 5:25] = 1
    loss, _ = training_loss(model, torch.rand(2, 6, 32, 32), mask)
    loss.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle


@pytest.mark.parametrize('backbone', ['resnet_tiny', 'resnet18'])
def test_the_encoder_is_dilated_to_stride_eight(backbone: str) -> None:
    features = tiny(backbone=backbone).encoder(torch.rand(1, 6, 64, 64))
    assert [64 // feature.shape[-1] for feature in features] == [1, 2, 4, 8, 8, 8]


@pytest.mark.parametrize(('height', 'width', 'upsampling'), [(8, 8, 1), (16, 20, 1), (50, 37, 1), (13, 21, 2)])
def test_sides_of_any_length_and_edges_for_training(height: int, width: int, upsampling: int) -> None:
    model = tiny(upsampling=upsampling).eval()
    image = torch.rand(2, 6, height, width)
    logits, edges = model.forward_with_edges(image)
    assert logits.shape == (2, 3, height, width)
    assert [tuple(edge.shape) for edge in edges] == [(2, 1, height, width)] * 3
    assert torch.equal(model(image), logits)


def test_padding_lies_at_the_far_ends_and_leaves_logits_where_they_were() -> None:
    model = tiny().eval()
    image = torch.rand(1, 6, 40, 32)
    image[..., 35:, :] = image[..., 34:35, :]  # as padding makes it
    assert torch.allclose(model(image[..., :35, :]), model(image)[..., :35, :], atol=1e-5)


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
