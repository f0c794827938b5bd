"""``ratio='auto'``: the ratio, and the labels, that were measured to help."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Subset
from toys import Toy

import hsiaug.evidence as evidence
from hsiaug import MixedDataModule, MixedDataset, SyntheticMix, fit_generator, write_bank
from hsiaug.datasets import SpectraDataset
from hsiaug.evidence import Evidence
from hsiaug.scenes import Scene, Split
from hsiaug.systems import TrainingData

FEW = Evidence('variability', 'spectrum', {}, 10.0, 2.0, 0.0, 'uniform', 'oa', 3.0, (1.0, 5.0), 16, {}, 'few.json')
ALL = replace(FEW, labels_per_class=None, ratio=0.5, labels='sqrt', origin='all.json')
FIRST = replace(FEW, ratio=4.0, synthetic_first=0.5, gain=9.0, interval=(8.0, 10.0))
HARMS = replace(FEW, generator='noise', gain=-3.0, interval=(-4.0, -2.0))


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, 'known_evidence', lambda: (FEW, ALL, FIRST, HARMS))


@pytest.fixture
def real(scene: Scene, split: Split) -> SpectraDataset:
    return SpectraDataset(scene, split, 'train')


def few_of_each(real: SpectraDataset, count: int) -> Subset[Any]:
    label = real.tensors()[1].numpy()
    return Subset(real, [int(i) for k in np.unique(label) for i in np.flatnonzero(label == k)[:count]])


def test_it_goes_by_the_labels_at_hand_and_says_so(
    real: SpectraDataset, data: TrainingData, caplog: pytest.LogCaptureFixture
) -> None:
    generator, few = fit_generator('variability', data), few_of_each(real, 5)
    with caplog.at_level(logging.INFO, 'hsiaug'):
        mixed = MixedDataset(few, generator, ratio='auto')
    assert mixed.num_synthetic == 2 * len(few)  # and not 4: only a study knows how long the training is
    assert mixed.recommendation.evidence is FEW
    assert 'few.json' in caplog.text
    assert 'ratio 2: variability at ratio 2' in repr(mixed)
    asked = np.bincount([int(mixed[i]['label']) for i in range(len(few), len(mixed))])
    asked = asked[asked > 0]
    assert asked.max() - asked.min() <= 1  # uniform, as measured
    assert MixedDataset(few, generator, ratio=2.0, labels='real').recommendation is None


def test_labels_that_are_given_stay(real: SpectraDataset, data: TrainingData) -> None:
    only = {data.spec.classes[0]: 1.0}
    mixed = MixedDataset(real, fit_generator('variability', data), ratio='auto', labels=only)
    synthetic = [mixed[i]['label'] for i in np.flatnonzero(mixed.is_synthetic())]
    assert synthetic
    assert set(map(int, synthetic)) == {0}


def test_a_bank_is_known_by_its_generator(real: SpectraDataset, data: TrainingData, tmp_path: Any) -> None:
    bank = write_bank(fit_generator('variability', data), 400, tmp_path / 'bank', progress=False)
    few = few_of_each(real, 5)
    assert MixedDataset(few, bank, ratio='auto').num_synthetic == 2 * len(few)


def test_what_harms_is_not_mixed_in(real: SpectraDataset, data: TrainingData) -> None:
    mixed = MixedDataset(real, fit_generator('noise', data), ratio='auto')
    assert len(mixed) == len(real)
    assert mixed.recommendation.note.startswith('no gain was found')
    assert torch.equal(mixed[3]['image'], real[3]['image'])


def test_an_unknown_source_asks_for_a_ratio(real: SpectraDataset, data: TrainingData) -> None:
    with pytest.raises(ValueError, match=r"nothing was measured for 'duplicate'.*give a ratio"):
        MixedDataset(real, fit_generator('duplicate', data), ratio='auto')
    with pytest.raises(ValueError, match='does not say which generator'):
        MixedDataset(Toy('segmentation', 8), Toy('segmentation', 8), ratio='auto')


def test_named_sources_each_have_theirs(real: SpectraDataset, data: TrainingData) -> None:
    sources = {'ours': fit_generator('variability', data), 'copies': fit_generator('duplicate', data)}
    few = few_of_each(real, 5)
    mixed = MixedDataset(few, sources, ratio={'ours': 'auto', 'copies': 1.0})
    assert np.bincount(mixed.source_numbers()).tolist() == [len(few), 2 * len(few), len(few)]
    assert list(mixed.recommendation) == ['ours']


def test_batches_are_mixed_by_it(real: SpectraDataset, data: TrainingData) -> None:
    few = few_of_each(real, 5)
    mix = SyntheticMix(fit_generator('variability', data), ratio='auto', mode='append', real=few)
    batch = mix(next(iter(DataLoader(few, batch_size=6))))
    assert int(batch['synthetic'].sum()) == 12
    assert mix.recommendation.ratio == 2


@pytest.mark.parametrize('way', ['dataset', 'batch'])
def test_a_datamodule_resolves_it_with_its_training_data(real: SpectraDataset, data: TrainingData, way: Any) -> None:
    few = few_of_each(real, 5)

    class Inner(LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader(few, batch_size=6, shuffle=True)

    datamodule = MixedDataModule(Inner(), fit_generator('variability', data), ratio='auto', way=way)
    assert datamodule.recommendation is None
    datamodule.train_dataloader()
    assert datamodule.recommendation.evidence is FEW
    assert datamodule.schedule(0) == 2
