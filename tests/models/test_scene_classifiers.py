import pytest
import torch
import torchvision
from torch import nn

from hsiaug.models import PatchCNN, scene_classifier
from hsiaug.models.scene_classifiers import SceneModel

SIDES: dict[SceneModel, int] = {'alexnet': 64, 'vgg16': 32, 'resnet18': 16, 'cnn2d': 8, 'cnn3d': 8}


def weights(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize('name', SIDES)
def test_any_number_of_bands_and_classes(name: SceneModel) -> None:
    side = SIDES[name]
    narrow = 8 if name in ('alexnet', 'vgg16', 'resnet18') else 1
    for bands, classes in ((5, 3), (13, 2)):
        network = scene_classifier(name, bands, classes, (side, side + 1), narrow, dropout=0.1).eval()
        image = torch.randn(3, bands, side, side + 1, generator=torch.Generator().manual_seed(0))
        logits = network(image)
        assert logits.shape == (3, classes)
        image[0, -1] += 1  # the last band is looked at, and only its own sample changes
        moved = network(image)
        assert not torch.allclose(moved[0], logits[0], atol=1e-7)
        assert torch.allclose(moved[1:], logits[1:], atol=1e-5)
        assert not any(t.is_meta for t in (*network.parameters(), *network.buffers()))


@pytest.mark.parametrize('name', ['alexnet', 'resnet18'])
def test_at_full_width_the_layers_are_torchvisions(name: SceneModel) -> None:
    ours = scene_classifier(name, 3, 7, (64, 64))
    theirs = getattr(torchvision.models, name)(num_classes=7)
    shapes = [tuple(p.shape) for p in theirs.parameters()]
    assert [tuple(p.shape) for p in ours.parameters()] == shapes
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    image = torch.randn(1, 3, 64, 64)
    assert torch.allclose(ours.eval()(image), theirs.eval()(image), atol=1e-6)
    more = scene_classifier(name, 10, 7, (64, 64))
    assert weights(more) - weights(ours) == 7 * shapes[0][0] * shapes[0][2] ** 2


def test_narrow_networks_are_of_the_same_depth_and_far_smaller() -> None:
    full, narrow = (scene_classifier('resnet18', 4, 3, (16, 16), n) for n in (1, 8))
    assert len(list(full.parameters())) == len(list(narrow.parameters()))
    assert 40 * weights(narrow) < weights(full)
    torch.manual_seed(0)
    with torch.no_grad():
        signal = scene_classifier('vgg16', 4, 3, (32, 32), 8).features(torch.randn(2, 4, 32, 32))  # type: ignore[operator]
    assert 0.05 < float(signal.std()) < 10  # thirteen layers neither fade nor explode it


def test_large_networks_take_enlarged_patches() -> None:
    network = scene_classifier('alexnet', 4, 3, (8, 8), 16, upsampling=8)
    assert network(torch.randn(2, 4, 8, 8)).shape == (2, 3)
    with pytest.raises(ValueError, match=r'sides of at least 63 pixels, found 8 x 8; enlarge them with upsampling=8'):
        scene_classifier('alexnet', 4, 3, (8, 8))


@pytest.mark.parametrize('dims', [2, 3])
def test_patch_cnn_tells_places_apart(dims: int) -> None:
    network = PatchCNN(9, 3, (8, 6), dims, width=8).eval()  # type: ignore[arg-type]
    image = torch.zeros(2, 9, 8, 6)
    image[0, :, 2, 2] = image[1, :, 5, 4] = 1
    features = network.features(image)
    assert network.head.in_features == features.shape[1]
    one, other = network(image)
    assert not torch.allclose(one, other, atol=1e-7)


def test_a_three_dimensional_cnn_shares_weights_along_the_spectrum() -> None:
    few, many = (PatchCNN(bands, 3, (8, 8), 3) for bands in (20, 200))
    assert weights(few.layers) == weights(many.layers)
    assert weights(PatchCNN(200, 3, (8, 8)).layers) > 8 * weights(many.layers)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"unknown name 'lenet'; choose from \('alexnet',"):
        scene_classifier('lenet', 4, 3, (8, 8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'narrow must be one of .* found 3'):
        scene_classifier('resnet18', 4, 3, (8, 8), 3)
    with pytest.raises(ValueError, match="narrow is for the large networks, found 2 for 'cnn2d'"):
        scene_classifier('cnn2d', 4, 3, (8, 8), 2)
    with pytest.raises(ValueError, match=r'dropout in \[0, 1\) are needed, found 1 and 1'):
        scene_classifier('cnn2d', 4, 3, (8, 8), dropout=1)
    with pytest.raises(ValueError, match='found dims 3, 3 bands'):
        PatchCNN(3, 3, (8, 8), 3)
