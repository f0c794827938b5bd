from typing import Any

import pytest
import torch
from torch import Tensor

import hsiaug.models.encoders as encoders
from hsiaug.models import SegFormer, segformer


@pytest.mark.parametrize('mapping', [True, False])
def test_the_mapping_layer_gives_the_encoder_three_channels(mapping: bool) -> None:
    model = segformer(9, 4, 'mit_tiny', mapping=mapping, decoder_channels=16)
    seen: list[Tensor] = []
    model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    image = torch.rand(1, 9, 32, 32)
    model(image)
    assert seen[0].shape[1] == (3 if mapping else 9)
    if mapping:  # one matrix for all pixels
        weight = model.mapping.weight.flatten(1)  # type: ignore[union-attr, operator]
        expected = torch.einsum('kc,nchw->nkhw', weight, image) + model.mapping.bias[:, None, None]  # type: ignore[union-attr, index]
        assert torch.allclose(seen[0], expected, atol=1e-5)


def test_named_encoders_have_the_published_size() -> None:
    count = sum(p.numel() for p in SegFormer(3, 150, 'mit_b0').parameters())
    assert count == pytest.approx(3.8e6, rel=0.03)  # Table 1 of the paper, B0 with 150 classes


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"unknown encoder 'resnet18'; choose from \['mit_tiny', 'mit_b0'"):
        SegFormer(3, 2, 'resnet18')
    with pytest.raises(ValueError, match="'mit_tiny' has no weights"):
        SegFormer(3, 2, 'mit_tiny', encoder_weights='imagenet')
    with pytest.raises(ValueError, match=r"unknown weights 'moon' for 'mit_b0'; choose from \['imagenet'\]"):
        SegFormer(3, 2, encoder_weights='moon')

    def out_of_reach(*args: Any, **kwargs: Any) -> None:
        raise FileNotFoundError('cannot find the requested files')

    monkeypatch.setattr(encoders, 'get_encoder', out_of_reach)
    with pytest.raises(ConnectionError, match=r'hub is out of reach \(FileNotFoundError\); weights=None'):
        SegFormer(3, 2, encoder_weights='imagenet')
