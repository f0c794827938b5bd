import pytest
import torch
from mixtures import BANDS, WAVELENGTHS, endmembers, mixtures

from hsiaug.functional.unmixing import band_selection
from hsiaug.systems.unmixing_fusion.unmixing import network as module
from hsiaug.systems.unmixing_fusion.unmixing.network import ChannelAttention, UnmixingNetwork

WIDTHS = (4, 4, 8, 4, 4)
SELECTION = torch.from_numpy(band_selection(BANDS, WAVELENGTHS))
IMAGE = mixtures(4).x


def network(selection: torch.Tensor = SELECTION) -> UnmixingNetwork:
    torch.manual_seed(0)
    made = UnmixingNetwork(selection, 3, WIDTHS).eval()
    with torch.no_grad():
        made.scale.fill_(500.0)
        made.decoder.weight.copy_((endmembers() / 500).T[:, :, None, None])
    return made


def test_published_widths_are_the_default() -> None:
    made = UnmixingNetwork(SELECTION, 5)
    shapes = [tuple(p.shape[:2]) for n, p in made.encoder.named_parameters() if p.ndim == 4 and 'skip' not in n]
    assert shapes == [(32, 3), (64, 32), (64, 64), (128, 64), (128, 128), (96, 128), (96, 96), (48, 96), (5, 48)]
    assert sum(isinstance(m, ChannelAttention) for m in made.modules()) == 3
    assert made.decoder.bias is None


def test_images_are_linear_mixtures_in_the_datasets_unit() -> None:
    made = network()
    abundances, output = made(IMAGE)
    assert torch.allclose(abundances.sum(dim=1), torch.ones(4, 16, 16), atol=1e-5)
    assert (abundances >= 0).all()
    assert torch.allclose(output, torch.einsum('kc,nkhw->nchw', endmembers(), abundances), rtol=1e-4, atol=1e-2)
    assert torch.allclose(made.endmembers, endmembers())
    assert torch.allclose(made.mix(abundances), output)


def test_three_bands_are_all_that_abundances_see() -> None:
    made = network()
    chosen = SELECTION.argmax(dim=1)
    others = torch.ones(BANDS, dtype=torch.bool)
    others[chosen] = False
    changed = IMAGE.clone()
    changed[:, others] *= 2
    assert torch.equal(made.abundances(changed), made.abundances(IMAGE))
    assert torch.equal(made.abundances(IMAGE[:, chosen]), made.abundances(IMAGE))  # red, green and blue by themselves
    assert not torch.allclose(made.abundances(2 * IMAGE), made.abundances(IMAGE))
    everything = network(torch.eye(BANDS))
    assert not torch.allclose(everything.abundances(changed), everything.abundances(IMAGE))


def test_attention_weighs_channels_by_the_whole_image() -> None:
    torch.manual_seed(0)
    attention = ChannelAttention(6)
    x = torch.rand(2, 6, 5, 5)
    ratio = attention(x) / x
    assert torch.allclose(ratio, ratio[:, :, :1, :1].expand_as(ratio), atol=1e-5)
    assert not torch.allclose(ratio[0], ratio[1], atol=1e-4)
    y = x.clone()
    y[0, 2, 4, 4] = 9  # the maximum counts
    assert not torch.allclose(attention(y)[0, :, 0, 0], attention(x)[0, :, 0, 0])


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network()
    whole = made.abundances(IMAGE)
    monkeypatch.setattr(module, 'CHUNK_PIXELS', 300)
    assert torch.allclose(made.abundances(IMAGE), whole, atol=1e-6)
    assert made.abundances(IMAGE[:0]).shape == (0, 3, 16, 16)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r'images \(n, 24, H, W\) or selected bands \(n, 3, H, W\)'):
        network().abundances(torch.zeros(1, 5, 8, 8))
    with pytest.raises(ValueError, match=r'selection must be \(M, C\)'):
        UnmixingNetwork(torch.eye(3)[0], 3)
    with pytest.raises(ValueError, match=r'2 or more endmembers are needed, found .* and 1'):
        UnmixingNetwork(SELECTION, 1)
