"""Unlabelled samples with labels of several networks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from changes import make_changes
from pairs import make_pairs, nearest_class
from torch import Tensor, nn
from toys import toy_spec

from hsiaug import Generator, MixedDataset, SyntheticBank, fit_generator, write_bank
from hsiaug.ablation import Arm, Segmenter, Setting, Study, run_study
from hsiaug.ablation.results import RESULTS_FILE, read_results
from hsiaug.datasets import PatchDataset
from hsiaug.scenes import PatchSplit, PatchSplitter, SimulatedScene
from hsiaug.systems import TrainingData
from hsiaug.systems.pseudo_label import PseudoLabel, agreed
from hsiaug.trainers import SegmenterConfig

SEGFORMER = {'encoder': 'mit_tiny', 'mapping': False, 'channels': 16, 'learning_rate': 3e-3, 'batch_size': 8}


class Sure(nn.Module):
    """Always the same logits, of one pixel each."""

    def __init__(self, *logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits).T)

    def forward(self, image: Tensor) -> Tensor:
        return self.logits.expand(len(image), *self.logits.shape)


def test_only_what_all_say_and_are_sure_of_counts() -> None:
    sure, unsure = [4.0, 0.0], [0.5, 0.0]
    teachers = [Sure(sure, sure, sure, unsure), Sure(sure, sure[::-1], unsure, unsure)]
    label, counts = agreed(teachers, torch.zeros(3, 1), confidence=0.75, chunk=2)
    assert counts.tolist() == [[True, False, True, False]] * 3
    assert label.tolist() == [[0, label[0, 1], 0, 0]] * 3
    assert agreed(teachers, torch.zeros(1, 1), confidence=0.85)[1].tolist() == [[True, False, False, False]]


@pytest.fixture(scope='module')
def pairs() -> TrainingData:
    return replace(make_pairs(12), unlabelled=make_pairs(30, seed=1).x)


@pytest.fixture(scope='module')
def fitted(pairs: TrainingData) -> Generator:
    return fit_generator('pseudo_label', pairs, {'teachers': 2, 'teacher': {**SEGFORMER, 'steps': 60}}, seed=3)


def test_images_are_the_unlabelled_ones_and_labels_are_right(fitted: Generator, pairs: TrainingData) -> None:
    batch = fitted.sample(60, seed=0)
    known = {row.numpy().tobytes() for row in pairs.unlabelled}
    assert all(row.numpy().tobytes() in known for row in batch['image'])
    counts = batch['mask'] != 255
    assert 0.2 < counts.float().mean() < 1
    assert (batch['mask'] == nearest_class(batch['image']))[counts].float().mean() > 0.95
    one = fitted.sample(30, torch.full((30,), 2), seed=0)['mask']
    assert (one == 2).flatten(1).any(dim=1).all()
    assert fitted.provenance is not None
    assert fitted.provenance.training['agreed'] > 0.2
    assert fitted.provenance.training['teachers'] == 2


def test_saved_banked_and_mixed(fitted: Generator, pairs: TrainingData, tmp_path: Path) -> None:
    loaded = Generator.from_pretrained(fitted.save_pretrained(tmp_path / 'g'))
    assert torch.equal(loaded.sample(9, seed=2)['image'], fitted.sample(9, seed=2)['image'])
    write_bank(loaded, 8, tmp_path / 'bank')
    mixed = MixedDataset(PatchDataset(pairs.x, pairs.y, pairs.spec), SyntheticBank.open(tmp_path / 'bank'), 0.5)
    assert sum(bool(sample['synthetic']) for sample in mixed) == 6


@pytest.mark.parametrize('paste', ['host', 'donor'])
def test_pasted_with_labelled_ones(pairs: TrainingData, paste: Any) -> None:
    # Labelled pixels have values that no other has, so that it can be told where one is from.
    labelled = replace(pairs, x=pairs.x.round() + 0.25, unlabelled=pairs.unlabelled.round())
    generator, masks = PseudoLabel(pairs.spec, paste), nearest_class(labelled.unlabelled)
    masks[:, :4, :4] = 255
    generator.keep(labelled.unlabelled, masks, labelled)
    generator.adopt(labelled, 0)
    batch, again = generator.sample(80, seed=1), generator.sample(80, seed=1)
    assert torch.equal(batch['mask'], again['mask'])
    real = (batch['image'] % 1 == 0.25).all(dim=1)
    assert torch.equal(real, (batch['image'] % 1 == 0.25).any(dim=1))
    assert 0.35 < real.float().mean() < 0.65
    both = real.flatten(1).any(dim=1) & (~real).flatten(1).any(dim=1)
    assert both.float().mean() > 0.8
    assert (batch['mask'][real] != 255).all()
    assert (batch['mask'][~real] == 255).any()
    assert (batch['mask'] == nearest_class(batch['image']))[real].float().mean() > 0.95


def test_pairs_of_dates() -> None:
    data = replace(make_changes(16), unlabelled=make_changes(20, seed=1).x)
    teacher = {'encoder': 'mit_tiny', 'channels': 16, 'learning_rate': 3e-3, 'steps': 20, 'batch_size': 8}
    settings = {'teachers': 1, 'confidence': 0.5, 'teacher': teacher, 'paste': 'donor'}
    batch = fit_generator('pseudo_label', data, settings).sample(12, seed=0)
    assert batch['image'].shape == (12, 2, *data.x.shape[2:])
    assert batch['mask'].shape == (12, 1, *data.y.shape[2:])
    assert set(batch['mask'].unique().tolist()) <= {0, 1, 255}


def test_spectra(data: TrainingData) -> None:
    teacher = {'hidden': 32, 'layers': 2, 'steps': 150}
    generator = fit_generator('pseudo_label', data, {'teachers': 2, 'confidence': 0.8, 'teacher': teacher})
    assert isinstance(generator, PseudoLabel)
    assert len(generator.x) < len(data.unlabelled) + len(data.x)
    labels = torch.arange(data.spec.num_classes).repeat(20)
    batch = generator.sample(len(labels), labels, seed=0)
    assert torch.equal(batch['label'], labels)
    nearest = torch.cdist(batch['image'], data.x).argmin(dim=1)
    assert (data.y[nearest] == labels).float().mean() > 0.8


def test_labelled_samples_stand_in_for_a_class_that_no_teacher_finds(data: TrainingData) -> None:
    one = data.unlabelled[:0].new_zeros((5, data.spec.bands)) + data.x[data.y == 0].mean(dim=0)
    teacher = {'hidden': 32, 'layers': 2, 'steps': 150}
    generator: Any = fit_generator(
        'pseudo_label', replace(data, unlabelled=one), {'teachers': 1, 'confidence': 0.5, 'teacher': teacher}
    )
    assert generator.y.tolist()[:5] == [0] * 5
    asked = torch.full((4,), data.spec.num_classes - 1)
    known = {row.numpy().tobytes() for row in data.x[data.y == data.spec.num_classes - 1]}
    assert all(row.numpy().tobytes() in known for row in generator.sample(4, asked, seed=0)['image'])


def test_ablated_by_name(tmp_path: Path) -> None:
    """Windows beyond the budget are labelled, and the generator is known to have seen them."""
    network = SegmenterConfig('segformer', 'mit_tiny', channels=8, steps=3, batch_size=4)
    teacher = {'encoder': 'mit_tiny', 'channels': 8, 'steps': 3, 'batch_size': 4}
    settings = {'teachers': 2, 'confidence': 0.0, 'teacher': teacher, 'paste': 'donor'}
    study = Study(
        'pseudo',
        {'simulated': simulated},
        (Setting('simulated', '6 windows', PatchSplitter(size=16, stride=8, max_train=6, max_unlabelled=20)),),
        (Arm('pseudo', 'pseudo_label', settings, 'real', live=True),),
        ratios=(1.0,),
        seeds=(0,),
        classifiers=(Segmenter('SegFormer', network),),
        fidelity_seeds=0,
    )
    run_study(study, tmp_path, progress=False)
    assert [row['arm'] for row in read_results(tmp_path / RESULTS_FILE)] == ['real', 'pseudo']
    (folder,) = (tmp_path / 'generators').iterdir()
    seen = Generator.from_pretrained(folder).provenance
    split = study.settings[0].splitter(simulated(), 0)  # type: ignore[operator]
    assert isinstance(split, PatchSplit)
    assert len(split.unlabelled) > 5
    assert seen is not None
    assert seen.seen == split.footprint()


def simulated() -> SimulatedScene:
    return SimulatedScene(96, 96, seed=0)


def test_mistakes(pairs: TrainingData) -> None:
    def fit(given: TrainingData = pairs, **settings: Any) -> Generator:
        return fit_generator('pseudo_label', given, {'teacher': {**SEGFORMER, 'steps': 1}, 'teachers': 1, **settings})

    with pytest.raises(ValueError, match='no unlabelled samples'):
        fit(replace(pairs, unlabelled=pairs.x[:0]))
    with pytest.raises(ValueError, match=r"\('M', 8, 16, 16\).*found \(30, 8, 16, 8\)"):
        fit(replace(pairs, unlabelled=pairs.unlabelled[..., :8]))
    with pytest.raises(ValueError, match='no ignore_index'):
        fit(replace(pairs, spec=replace(pairs.spec, ignore_index=None)))
    with pytest.raises(ValueError, match=r'agree on no label of 30 .* confidence of 0\.999'):
        fit(confidence=0.999)
    with pytest.raises(ValueError, match=r'teacher.*stepz'):
        fit(teacher={'stepz': 3})
    with pytest.raises(ValueError, match='confidence'):
        fit(confidence=1.5)
    with pytest.raises(ValueError, match="paste='donor' is for samples with masks"):
        PseudoLabel(toy_spec('spectrum'), paste='donor')
