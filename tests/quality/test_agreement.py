from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from changes import make_changes
from pairs import class_spectra, make_pairs
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import log_softmax

from hsiaug.datasets import PatchDataset
from hsiaug.quality import AgreementGate, label_regions
from hsiaug.quality.agreement import _losses, one_hot_targets
from hsiaug.samples import SampleSpec
from hsiaug.scenes import PatchSplitter, Scene, SimulatedScene
from hsiaug.scenes.windows import window_sums
from hsiaug.systems import TrainingData
from hsiaug.trainers import ChangeDetectorConfig, ClassifierConfig, SegmenterConfig, training_data

FAST = ClassifierConfig(hidden=32, layers=1, steps=150, lr=5e-3, label_smoothing=0.1)
NEW = make_pairs(40, seed=1)


@pytest.fixture(scope='module')
def gate() -> AgreementGate:
    return AgreementGate(config=FAST).fit(make_pairs(48, seed=0, ignored=0.1))


def auroc(good: Tensor, bad: Tensor) -> float:
    return float(roc_auc_score(np.r_[np.zeros(len(good)), np.ones(len(bad))], torch.cat([good, bad]).numpy()))


def test_aligned_masks_pass_and_shifted_ones_do_not(gate: AgreementGate) -> None:
    good = gate.score({'image': NEW.x, 'mask': NEW.y})
    assert float((good <= gate.threshold).double().mean()) > 0.85
    for shift, least in ((1, 0.9), (4, 0.99)):
        # Along the diagonal every straight border moves; roll brings pixels round, so the edge is left out.
        image, mask = NEW.x[..., shift:, shift:], NEW.y[..., :-shift, :-shift]
        assert auroc(good, gate.score({'image': image, 'mask': mask})) > least
    assert not gate.keep({'image': NEW.x[..., 4:, 4:], 'mask': NEW.y[..., :-4, :-4]}).any()


def test_swapped_classes_do_not_pass(gate: AgreementGate) -> None:
    assert not gate.keep({'image': NEW.x, 'mask': (NEW.y + 1) % 3}).any()
    with pytest.raises(ValueError, match=r"image and mask belong together, found only \['image'\]"):
        gate.keep({'image': NEW.x})


def test_pixels_that_disagree_are_ignored_and_others_kept(gate: AgreementGate) -> None:
    wrong = NEW.y.clone()
    wrong[:, 2:5, 2:5] = (wrong[:, 2:5, 2:5] + 1) % 3
    wrong[:, 0, 0] = 255
    cleaned = gate.clean({'image': NEW.x, 'mask': wrong})
    spoilt = cleaned['mask'] == 255
    assert spoilt[:, 2:5, 2:5].all()
    assert spoilt[:, 0, 0].all()
    spoilt[:, 2:5, 2:5] = False
    spoilt[:, 0, 0] = False
    assert float(spoilt.double().mean()) < 0.2
    assert torch.equal(cleaned['mask'][cleaned['mask'] != 255], wrong[cleaned['mask'] != 255])
    assert torch.equal(cleaned['image'], NEW.x)
    lenient = AgreementGate(config=FAST, margin=1e6).fit(make_pairs(48, seed=0))
    assert torch.equal(lenient.clean({'image': NEW.x, 'mask': wrong})['mask'], wrong)


def test_without_an_ignore_index_masks_stay() -> None:
    data = make_pairs(30)
    gate = AgreementGate(config=FAST).fit(replace(data, spec=replace(data.spec, ignore_index=None)))
    wrong = (NEW.y + 1) % 3
    assert torch.equal(gate.clean({'image': NEW.x, 'mask': wrong})['mask'], wrong)


def test_losses_are_in_mean_real_losses_of_the_class(gate: AgreementGate) -> None:
    losses = gate.label_losses({'image': NEW.x, 'mask': NEW.y})
    for k in range(3):
        assert float(losses[NEW.y == k].mean()) == pytest.approx(1, abs=0.35)
    expected = losses.flatten(1).mean(dim=1).log()
    torch.testing.assert_close(gate.score({'image': NEW.x, 'mask': NEW.y}), expected)
    ignored = NEW.y.clone()
    ignored[0], ignored[1, :8] = 255, 255
    scores = gate.score({'image': NEW.x, 'mask': ignored})
    assert scores[0].isnan()
    assert float(scores[1]) == pytest.approx(float(losses[1, 8:].mean().log()), rel=1e-4)
    assert not gate.keep({'image': NEW.x, 'mask': ignored})[0]


def test_a_wrong_label_is_not_judged_by_the_network_that_learnt_it() -> None:
    """Whole regions with wrong labels: a network that has seen them would excuse them."""
    data = make_pairs(60)
    wrong = data.y.clone()
    wrong[:6] = (wrong[:6] + 1) % 3
    gate = AgreementGate(config=FAST).fit(replace(data, y=wrong))
    losses = gate.sample_loss
    assert float(losses[:6].min()) > float(losses[6:].max())


def test_a_class_of_one_region_is_judged_by_those_who_know_it() -> None:
    """The network without that region has never met the class: it must not speak against its synthetic samples."""
    data, new = spectra(240, 0), spectra(150, 1)
    regions = torch.where(data.y == 2, 0, 1 + torch.arange(240) % 8)
    gate = AgreementGate(config=FAST).fit(data, regions)
    assert [bool(learnt[2]) for _, learnt in gate.classifiers].count(False) == 1
    third = new.y == 2
    assert gate.sample_loss[data.y == 2].isnan().all()
    keep = gate.keep({'image': new.x, 'label': new.y})
    assert float(keep[third].double().mean()) > 0.8
    wrong = gate.keep({'image': new.x[~third], 'label': torch.full((int((~third).sum()),), 2)})
    assert float(wrong.double().mean()) < 0.05


def test_a_class_that_nobody_knows_does_not_pass() -> None:
    data = spectra(120, 0)
    two = data.y < 2
    gate = AgreementGate(config=FAST).fit(replace(data, x=data.x[two], y=data.y[two]))
    keep = gate.keep({'image': data.x, 'label': data.y})
    assert not keep[~two].any()
    assert float(keep[two].double().mean()) > 0.8


def test_the_loss_of_a_soft_label_is_a_divergence() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 1.0]])
    wanted = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    found = _losses(lambda image: logits, torch.zeros(2, 1), wanted)
    guess = log_softmax(logits, dim=1)
    by_hand = [0.5 * (np.log(0.5) - guess[0, 0]) + 0.5 * (np.log(0.5) - guess[0, 1]), -guess[1, 2]]
    assert found.tolist() == pytest.approx([float(v) for v in by_hand], rel=1e-5)
    spec = SampleSpec('spectrum', 1, ('a', 'b', 'c'))
    assert one_hot_targets(torch.tensor([2, 255]), spec).tolist() == [[0, 0, 1], [1, 0, 0]]


def spectra(n: int, seed: int) -> TrainingData:
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=rng)
    x = (1 + 0.15 * torch.randn((n, 1), generator=rng)) * class_spectra()[y] + 6 * torch.randn((n, 8), generator=rng)
    return TrainingData(SampleSpec('spectrum', 8, ('a', 'b', 'c')), x, y, x[:0], x[:0], y[:0])


def test_spectra_with_wrong_and_with_soft_labels() -> None:
    gate, new = AgreementGate(config=FAST).fit(spectra(200, 0)), spectra(200, 1)
    assert float(gate.keep({'image': new.x, 'label': new.y}).double().mean()) > 0.85
    assert not gate.keep({'image': new.x, 'label': (new.y + 1) % 3}).any()
    wrong = one_hot_targets((new.y + 1) % 3, new.spec)
    assert not gate.keep({'image': new.x, 'label': new.y, 'label_prob': wrong}).any()
    right = one_hot_targets(new.y, new.spec)
    torch.testing.assert_close(
        gate.score({'image': new.x, 'label': new.y, 'label_prob': right}), gate.score({'image': new.x, 'label': new.y})
    )


def test_changes_that_are_none() -> None:
    data, new = make_changes(60), make_changes(30, seed=1)
    gate = AgreementGate(config=FAST).fit(data)
    changed = new.y.flatten(1).any(dim=1)
    assert float(gate.keep({'image': new.x, 'mask': new.y}).double().mean()) > 0.8
    inverted = {'image': new.x[changed], 'mask': 1 - new.y[changed]}
    assert not gate.keep(inverted).any()
    assert gate.clean(inverted)['mask'].shape == new.y[changed].shape


@pytest.mark.parametrize('kind', ['segmentation', 'change'])
def test_networks_with_context(kind: str) -> None:
    make: Any = make_pairs if kind == 'segmentation' else make_changes
    data, new = make(20, size=32), make(12, seed=1, size=32)
    config: SegmenterConfig | ChangeDetectorConfig = (
        SegmenterConfig(encoder='mit_tiny', mapping=False, channels=16, steps=40, batch_size=8, learning_rate=3e-3)
        if kind == 'segmentation'
        else ChangeDetectorConfig(encoder='mit_tiny', channels=16, steps=60, batch_size=8, learning_rate=3e-3)
    )
    two_regions = (torch.arange(20) % 2).view(-1, *(1,) * (data.y.ndim - 1)).expand(data.y.shape)
    gate = AgreementGate(config=config).fit(data, two_regions)
    assert len(gate.classifiers) == 2
    wrong = (new.y + 1) % data.spec.num_classes
    good, bad = (gate.score({'image': new.x, 'mask': mask}) for mask in (new.y, wrong))
    assert auroc(good, bad) > 0.9


def test_networks_that_do_not_suit() -> None:
    with pytest.raises(ValueError, match="SegmenterConfig cannot be used for samples of kind 'spectrum'"):
        AgreementGate(config=SegmenterConfig()).fit(spectra(20, 0))
    scene = replace(spectra(20, 0).spec, kind='scene', size=(4, 4))
    x = torch.rand(20, 8, 4, 4)
    with pytest.raises(ValueError, match="cannot be used for samples of kind 'scene'"):
        AgreementGate().fit(TrainingData(scene, x, torch.arange(20) % 3, x[:0], x[:0], torch.zeros(0).long()))
    with pytest.raises(ValueError, match='margin must be above 0, found'):
        AgreementGate(margin=0)


def test_images_that_are_not_finite_do_not_pass(gate: AgreementGate) -> None:
    image = NEW.x.clone()
    image[3, 0, 0, 0] = torch.nan
    keep = gate.keep({'image': image, 'mask': NEW.y})
    assert not keep[3]
    assert torch.equal(keep[4:], gate.keep({'image': NEW.x, 'mask': NEW.y})[4:])


def shifted_auroc(scene: Scene) -> float:
    """AUROC of masks shifted by four pixels to the right, on windows without a pixel that the gate has seen."""
    split = PatchSplitter(size=32, stride=8)(scene, 0)
    gate = AgreementGate(config=replace(FAST, steps=200)).fit(training_data(scene, split), label_regions(scene, split))
    free = np.ones(scene.num_pixels, dtype=bool)
    free[split.footprint().pixels()] = False
    corners = np.argwhere(window_sums(free.reshape(1, *scene.shape), 32)[0] == 32**2)
    corners = corners[(corners % 4 == 0).all(axis=1) & (corners[:, 1] <= scene.shape[1] - 36)]
    right, moved = (
        PatchDataset.from_scene(scene, replace(split, test_windows=at), 'test')
        for at in (corners, corners + np.array([0, 4]))
    )
    good, bad = (gate.score({'image': right.image, 'mask': mask}) for mask in (right.mask, moved.mask))
    return auroc(good, bad)


def test_the_simulated_scene_shows_a_shift_of_four_pixels() -> None:
    assert shifted_auroc(SimulatedScene(96, 96, wavelengths=np.linspace(400, 2400, 30), seed=3)) >= 0.9


def test_jasper_ridge_shows_a_shift_of_four_pixels(real_data: Path) -> None:
    data = np.load(real_data / 'jasper_ridge' / 'jasper_ridge.npz')
    labels = data['abundance'].argmax(axis=2) + 1
    assert shifted_auroc(Scene('jasper_ridge', data['cube'], labels, scale=float(data['scale']))) >= 0.9
