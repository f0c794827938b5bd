from typing import Any

import pytest
import torch
from segmentation_models_pytorch.encoders.mix_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

import hsiaug.models.encoders as encoders
from hsiaug.models import ChangeFormerV3, ChangeFormerV6

VERSIONS: list[Any] = [ChangeFormerV3, ChangeFormerV6]


def tiny(version: Any, bands: int = 5, **options: Any) -> Any:
    torch.manual_seed(0)
    return version(bands, encoder='mit_tiny', channels=16, **options)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.fixture(scope='module')
def published() -> dict[Any, Any]:
    return {version: version(3).eval() for version in VERSIONS}


def test_version_3_has_the_published_size_and_cost(published: dict[Any, Any]) -> None:
    model = published[ChangeFormerV3]
    # The published 32.7 M count three blocks, of the widths of the second to the fourth scale, that the published
    # network holds but never calls. What it calls, and what is here, is 24.3 M.
    idle = [Block(128, 1, 4, True, sr_ratio=8), Block(320, 2, 4, True, sr_ratio=4), Block(512, 2, 4, True, sr_ratio=2)]
    assert count(model, *idle) == pytest.approx(32.7e6, rel=0.01)
    assert count(model) == pytest.approx(24.3e6, rel=0.01)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, 2, 3, 256, 256))
    assert counter.get_total_flops() == pytest.approx(17.7e9, rel=0.01)


def test_version_6_has_the_published_size(published: dict[Any, Any]) -> None:
    assert count(published[ChangeFormerV6]) == pytest.approx(41.03e6, rel=0.001)


def test_the_paper_s_patches_are_wider_than_segformer_s(published: dict[Any, Any]) -> None:
    for model, kernels in zip(published.values(), ([7, 3, 3, 3], [7, 7, 7, 7]), strict=True):
        found = [getattr(model.encoder, f'patch_embed{scale}').proj.kernel_size[0] for scale in (1, 2, 3, 4)]
        assert found == kernels
        scales = model._dates(torch.rand(1, 2, 3, 64, 64))
        assert [tuple(f.shape[1:]) for f in scales] == [
            (2, 64, 16, 16), (2, 128, 8, 8), (2, 320, 4, 4), (2, 512, 2, 2),
        ]  # fmt: skip


@pytest.mark.parametrize('version', VERSIONS)
def test_bands_are_the_encoder_s_first_channels(version: Any) -> None:
    more, fewer = (tiny(version, bands=bands) for bands in (13, 3))
    assert count(more) - count(fewer) == 10 * 32 * 7 * 7


def test_version_3_sees_differences_alone_and_no_order() -> None:
    model = tiny(ChangeFormerV3).eval()
    image = torch.rand(2, 2, 5, 32, 32)
    assert torch.allclose(model(image), model(image.flip(1)), atol=1e-6)
    same = image[:, :1].expand(-1, 2, -1, -1, -1)
    found = model(same)  # two different scenes in which nothing has changed
    assert torch.allclose(found[0], found[1], atol=1e-6)
    assert not torch.allclose(model(image), found, atol=1e-4)
    learned = tiny(ChangeFormerV6).eval()
    assert not torch.allclose(learned(image), learned(image.flip(1)), atol=1e-6)


def test_version_6_hands_coarse_differences_down_to_fine_ones() -> None:
    model = tiny(ChangeFormerV6).eval()
    learned: list[Tensor] = []
    for module in model.difference:
        module.register_forward_hook(lambda module, inputs, output: learned.append(output))
    coarsest, *finer = model._differences(torch.rand(2, 2, 5, 64, 32))
    assert torch.equal(coarsest, learned[0])
    above = coarsest
    for own, found in zip(learned[1:], finer, strict=True):
        assert torch.allclose(found, own + interpolate(above, scale_factor=2, mode='bilinear'), atol=1e-6)
        above = found
    assert above.shape == (2, 16, 16, 8)
    block, x = model.enlarge[0][1], torch.rand(1, 16, 4, 4)
    assert torch.allclose(block(x) - x, 0.1 * block.body(x), atol=1e-6)  # as published: a branch of a tenth


def test_encoders_of_segformer_are_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(1, 2, 7, 32, 32)
    for version in VERSIONS:
        assert version(7, encoder='mit_b0', channels=8).eval()(image).shape == (1, 2, 32, 32)
    with pytest.raises(ValueError, match=r"ChangeFormerV3: unknown encoder 'resnet18'; choose from \['changeformer'"):
        ChangeFormerV3(3, encoder='resnet18')
    with pytest.raises(ValueError, match="ChangeFormerV6: 'changeformer' has no weights, found 'imagenet'"):
        ChangeFormerV6(3, encoder_weights='imagenet')

    def out_of_reach(*args: Any, **kwargs: Any) -> None:
        raise FileNotFoundError('cannot find the requested files')

    monkeypatch.setattr(encoders, 'get_encoder', out_of_reach)
    with pytest.raises(ConnectionError, match='ChangeFormerV3: the weights'):
        ChangeFormerV3(3, encoder='mit_b0', encoder_weights='imagenet')
