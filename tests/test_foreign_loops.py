"""Training loops that know nothing of hsiaug: only their dataset is another."""

from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from toys import BANDS, Toy

from hsiaug import MixedDataset


def plain_loop(dataset: Dataset[Any], epochs: int = 12) -> tuple[nn.Module, float]:
    """PyTorch's own quickstart recipe, for masks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(BANDS, 16, 1), nn.ReLU(), nn.Conv2d(16, 3, 1))
    optimizer, loss_fn = torch.optim.Adam(model.parameters(), 1e-2), nn.CrossEntropyLoss()
    for _ in range(epochs):
        for batch in DataLoader(dataset, batch_size=8, shuffle=True):
            loss = loss_fn(model(batch['image']), batch['mask'])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model, float(loss)


def smp_loop(dataset: Dataset[Any], epochs: int = 3) -> tuple[nn.Module, float]:
    """The recipe of smp's documentation: its model, loss and metrics, a step that gathers statistics."""
    torch.manual_seed(0)
    model = smp.Unet('resnet18', encoder_depth=3, decoder_channels=(16, 8, 8), encoder_weights=None,
                     in_channels=BANDS, classes=3)  # fmt: skip
    loss_fn = smp.losses.DiceLoss(smp.losses.MULTICLASS_MODE, from_logits=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    outputs: list[tuple[Tensor, ...]] = []
    for _ in range(epochs):
        outputs.clear()
        for batch in DataLoader(dataset, batch_size=8, shuffle=True, num_workers=1):
            image, mask = batch['image'], batch['mask']
            assert image.ndim == 4
            assert mask.ndim == 3
            logits = model(image)
            loss = loss_fn(logits, mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            predicted = logits.softmax(dim=1).argmax(dim=1)
            outputs.append(smp.metrics.get_stats(predicted, mask, mode='multiclass', num_classes=3))
    tp, fp, fn, tn = (torch.cat(values) for values in zip(*outputs, strict=True))
    return model, float(smp.metrics.iou_score(tp, fp, fn, tn, reduction='micro'))


@pytest.mark.parametrize('loop', [plain_loop, smp_loop])
def test_only_the_dataset_is_swapped(loop: Any) -> None:
    mixed = MixedDataset(Toy('segmentation', 24), Toy('segmentation', 60, seed=1), ratio=1.0)
    _, figure = loop(mixed)
    _, without = loop(Toy('segmentation', 24))
    assert 0 < figure < 2
    assert figure != without  # the loop has seen other samples


@pytest.mark.parametrize('loop', [plain_loop, smp_loop])
def test_ratio_zero_changes_no_bit(loop: Any) -> None:
    real, synthetic = Toy('segmentation', 24), Toy('segmentation', 60, seed=1)
    (plain, a), (mixed, b) = loop(real), loop(MixedDataset(real, synthetic, ratio=0))
    assert a == b
    states = plain.state_dict(), mixed.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
