from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Toy, aligned, keys_of

from hsiaug.datasets import Draw, MixedDataset, SyntheticDataset, SyntheticPool, as_pool
from hsiaug.datasets.pools.pool import Pool
from hsiaug.functional import tilt_to_mixture
from hsiaug.systems import Generator, TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms import SyntheticMix


def rows_of(pool: Pool, n: int) -> np.ndarray:
    """(n,) rows of a dataset that make up an epoch."""
    return pool.epoch(n, 0)[1][np.arange(n)]


@pytest.fixture(scope='module')
def generator(data: TrainingData) -> Generator:
    return fit_generator('noise', data)


def test_a_number_is_a_sample_however_numbers_are_batched(generator: Generator) -> None:
    for source in (generator, Toy('segmentation', 50)):
        pool = as_pool(source, Draw(seed=3))
        whole = pool.at(range(40), epoch=2)
        again = as_pool(source, Draw(seed=3))
        again.at(range(7), epoch=1)
        parts = [again.at(range(start, start + 8), epoch=2) for start in (32, 0, 8, 24, 16)]
        assert torch.equal(torch.cat([p['image'] for p in parts])[8:16], whole['image'][:8])
        shuffled = np.random.default_rng(0).permutation(40)
        assert torch.equal(again.at(shuffled, epoch=2)['image'], whole['image'][shuffled])
        assert not torch.equal(pool.at(range(40), epoch=3)['image'], whole['image'])
        assert not torch.equal(as_pool(source, Draw(seed=4)).at(range(40), epoch=2)['image'], whole['image'])


def test_live_labels_follow_the_policy_in_every_stretch(generator: Generator) -> None:
    pool = as_pool(generator, Draw(labels={'material 0': 3, 'material 2': 1}))
    for start in (0, 1024):
        counts = torch.bincount(pool.at(range(start, start + 1024))['label'], minlength=3)
        assert counts.tolist() == [768, 0, 256]
    drawn = torch.bincount(pool.random(4000, seed=1)['label'], minlength=3) / 4000
    assert abs(float(drawn[0]) - 0.75) < 0.04
    assert drawn[1] == 0


def test_labels_that_are_not_those_of_the_samples_are_refused() -> None:
    toy = Toy('spectrum', 30)
    drawn = as_pool(toy, Draw(labels='uniform')).at(range(6))['label']
    toy.labels = toy.data['label'].double()  # type: ignore[attr-defined]
    assert torch.equal(as_pool(toy, Draw(labels='uniform')).at(range(6))['label'], drawn)
    toy.labels = (toy.data['label'] + 1) % 3  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r'has \d as label of sample 0, but \d in its attribute `labels`'):
        as_pool(toy, Draw(labels='uniform')).at(range(6))


def test_a_dataset_gives_every_sample_once_before_any_twice() -> None:
    toy = Toy('spectrum', 30)
    pool = as_pool(toy)
    assert Counter(keys_of(pool.at(range(30))['image'])) == Counter(keys_of(toy.data['image']))
    with pytest.raises(ValueError, match=r'31 synthetic samples are needed.*holds 30.*replacement=True'):
        pool.at([30])
    twice = as_pool(toy, Draw(replacement=True)).at(range(60))
    assert set(Counter(keys_of(twice['image'])).values()) == {2}


@settings(max_examples=20, deadline=None)
@given(weights=st.lists(st.integers(0, 5), min_size=3, max_size=3).filter(any), n=st.integers(1, 40))
def test_chosen_rows_of_a_labelled_dataset_have_the_classes_asked_for(weights: list[int], n: int) -> None:
    toy = Toy('scene', 300, seed=1)
    pool = as_pool(toy, Draw(labels=dict(zip('abc', weights, strict=True))))
    rows = rows_of(pool, n)
    assert len(set(rows.tolist())) == n
    counts = np.bincount(toy.data['label'][rows], minlength=3)
    assert np.abs(counts - n * np.array(weights) / sum(weights)).max() <= 1 + 1e-9


def test_policies_on_a_dataset_are_refused_where_it_cannot_meet_them() -> None:
    toy = Toy('scene', 60)
    held = int((toy.data['label'] == 1).sum())
    pool = as_pool(toy, Draw(labels={'b': 1}))
    assert (toy.data['label'][rows_of(pool, held)] == 1).all()
    with pytest.raises(ValueError, match=f'{held + 1} synthetic samples are needed.*holds {held} with labels'):
        rows_of(pool, held + 1)
    for wrong in (None, 'uniform', '2', float('nan')):
        with pytest.raises(ValueError, match='needs a weight of each of 3 classes'):
            as_pool(toy, Draw(labels={'a': 1, 'b': wrong}))  # type: ignore[dict-item]
    toy.data['label'].clamp_(max=1)
    with pytest.raises(ValueError, match=r"asks for \['c'\], but the source holds no sample of it"):
        rows_of(as_pool(toy, Draw(labels='uniform')), 3)
    with pytest.raises(ValueError, match='needs the counts of the real classes'):
        as_pool(toy, Draw(labels='inverse'))
    with pytest.raises(ValueError, match='is empty'):
        as_pool(Toy('scene', 0))
    with pytest.raises(TypeError, match='found str'):
        as_pool('runs/bank')  # type: ignore[arg-type]


def test_patches_are_chosen_to_a_class_mixture() -> None:
    toy = Toy('segmentation', 400, seed=2)
    # Half the patches are mostly class c, half mostly class a.
    toy.data['image'][:200, 0] = toy.data['image'][:200, 0] ** 0.25
    toy.data['mask'] = torch.bucketize(toy.data['image'][:, 0].contiguous(), torch.tensor([0.4, 0.7]))
    plain = np.bincount(toy.data['mask'].reshape(-1), minlength=3) / toy.data['mask'].numel()
    wanted = np.array([0.35, 0.26, 0.39])
    pool = as_pool(toy, Draw(labels=dict(zip('abc', wanted, strict=True))))
    chosen = toy.data['mask'][rows_of(pool, 80)]
    mixture = np.bincount(chosen.reshape(-1), minlength=3) / chosen.numel()
    assert np.abs(mixture - wanted).max() < 0.02 < np.abs(plain - wanted).max()
    assert aligned(pool.random(20, seed=0))


def test_tilted_weights_by_hand_and_out_of_reach() -> None:
    fractions = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert np.allclose(tilt_to_mixture(fractions, np.array([0.5, 0.5])), [0.5, 0.25, 0.25], atol=1e-3)
    assert np.allclose(tilt_to_mixture(fractions, np.array([1 / 3, 2 / 3])), 1 / 3, atol=1e-3)
    one_sided = tilt_to_mixture(np.array([[0.6, 0.4], [0.9, 0.1]]), np.array([0.0, 1.0]))
    assert np.isfinite(one_sided).all()
    assert one_sided[0] > 0.99


def test_an_example_is_the_callers_own(generator: Generator) -> None:
    for source in (generator, Toy('scene', 9)):
        pool = as_pool(source)
        before = pool.example()['image'].clone()
        pool.example()['image'].zero_()
        assert torch.equal(pool.example()['image'], before)


def test_an_ignored_sample_is_drawn_for_no_class() -> None:
    class Ignored(Toy):
        def __init__(self) -> None:
            super().__init__('spectrum', 30, seed=2)
            self.spec = replace(self.spec, ignore_index=255)
            self.data['label'] = torch.tensor([0, 1, 2, 255, 255]).repeat(6)

    pool = as_pool(source := Ignored(), Draw(labels='uniform'))
    assert Counter(source.data['label'][rows_of(pool, 15)].tolist()) == {0: 5, 1: 5, 2: 5}
    assert pool.weights[3] == 0  # type: ignore[index]


@pytest.mark.parametrize('live', [True, False])
def test_a_pool_is_made_of_a_source_alone(generator: Generator, live: bool) -> None:
    source = generator if live else SyntheticDataset(generator, 50, seed=0)
    pool = SyntheticPool(source, 3, 'uniform' if live else None)
    other = as_pool(source, Draw(3, 'uniform' if live else None))
    assert type(pool) is type(other)
    assert torch.equal(pool.random(5, 1)['image'], other.random(5, 1)['image'])
    assert torch.equal(pool.at([0, 1])['image'], other.at([0, 1])['image'])


@pytest.mark.parametrize('dtype', [torch.uint8, torch.bool, torch.uint16, np.uint8])
def test_policies_read_masks_of_any_dtype(dtype: Any) -> None:
    """Of samples that are arrays, and of dtypes that torch itself cannot count or compare."""
    toy = Toy('segmentation', 12)
    spec = replace(toy.spec, classes=('low', 'high'))

    class Other(Toy):
        def __getitem__(self, index: int) -> Any:
            sample = super().__getitem__(index)
            mask = sample['mask'].clamp(max=1)
            return sample | {'mask': mask.numpy().astype(dtype) if dtype is np.uint8 else mask.to(dtype)}

    plain, other = Other('segmentation', 12), Toy('segmentation', 12)
    plain.spec = other.spec = spec
    other.data['mask'] = other.data['mask'].clamp(max=1)
    expected = as_pool(other, Draw(labels='uniform')).weights
    assert np.array_equal(as_pool(plain, Draw(labels='uniform')).weights, expected)  # type: ignore[attr-defined]


@pytest.mark.parametrize('kind', ['spectrum', 'segmentation'])
def test_a_class_that_is_the_ignore_index_is_never_asked_for(kind: Any) -> None:
    """Many data sets ignore their class 0, the background."""
    toy = Toy(kind, 60)
    toy.spec = replace(toy.spec, ignore_index=0)
    for policy in ('uniform', 'real', 'sqrt', 'inverse'):
        pool = as_pool(toy, Draw(labels=policy, real_counts=np.array([50, 20, 10])))
        assert pool.mixture()[0] == 0
        assert pool.mixture().sum() == pytest.approx(1)
    with pytest.raises(ValueError, match=r"gives weight to \['a'\], which the source leaves out"):
        as_pool(toy, Draw(labels={'a': 1.0}))
    if kind == 'spectrum':
        assert set(as_pool(toy, Draw(labels='uniform')).random(40, 0)['label'].tolist()) == {1, 2}


@pytest.mark.parametrize('counts', [[5, 10], [5, 10, 3, 4], [5, -1, 3], [5, np.nan, 3], {'a': 5}, 'many'])
@pytest.mark.parametrize('policy', ['real', 'sqrt', 'inverse', 'prior'])
def test_counts_that_are_not_one_for_each_class_are_refused(counts: Any, policy: Any, generator: Generator) -> None:
    with pytest.raises(ValueError, match=r'real_counts\) of each of 3 classes'):
        as_pool(generator, Draw(labels=policy, real_counts=counts, prior=np.ones(3)))
    as_pool(generator, Draw(labels='uniform', real_counts=counts))  # which needs none


def test_a_prior_that_no_policy_asks_for_is_refused(generator: Generator) -> None:
    with pytest.raises(ValueError, match="prior= says what labels='prior' is to reach, found labels=None"):
        SyntheticMix(generator, prior=np.ones(3))


def test_only_what_can_be_drawn_from_is_a_generator() -> None:
    with pytest.raises(TypeError, match='a generator expected, found Toy; a bank or another dataset is a source'):
        SyntheticDataset(Toy('scene', 6), 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'counts of the real classes: .* as hsiaug.adapt\(dataset\) makes'):
        MixedDataset(Toy('scene', 6), Toy('scene', 8, seed=1), labels='inverse')
