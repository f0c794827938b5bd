import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler
from toys import Toy, keys_of

from hsiaug.datasets import MixedDataset, SpectraDataset, SyntheticDataset, synthetic_counts, write_bank
from hsiaug.datasets.real.held import HeldSamples
from hsiaug.datasets.shared import Kept
from hsiaug.ratio import Schedule
from hsiaug.samples import LeakageError, Sample, SpecMismatchError
from hsiaug.scenes import RandomSplit, Scene, Split
from hsiaug.systems import Generator, TrainingData
from hsiaug.trainers import ClassifierConfig, fit_generator, train_nn1d
from hsiaug.transforms import SyntheticMix


@pytest.fixture(scope='module')
def real(scene: Scene, split: Split) -> SpectraDataset:
    return SpectraDataset(scene, split)


@pytest.fixture(scope='module')
def generator(data: TrainingData) -> Generator:
    return fit_generator('noise', data)


def rows(dataset: Dataset[Sample]) -> list[tuple[bytes, int]]:
    return [(dataset[i]['image'].numpy().tobytes(), int(dataset[i]['label'])) for i in range(len(dataset))]  # type: ignore[arg-type]


@pytest.mark.parametrize('ratio', [0.25, 1, 5])
def test_append_counts_are_exact_and_no_real_sample_is_lost(
    real: SpectraDataset, generator: Generator, ratio: float
) -> None:
    mixed = MixedDataset(real, generator, ratio)
    flags = [bool(mixed[i]['synthetic']) for i in range(len(mixed))]
    assert sum(flags) == round(ratio * len(real))
    kept = [row for row, flag in zip(rows(mixed), flags, strict=True) if not flag]
    assert kept == rows(real)
    added = [row for row, flag in zip(rows(mixed), flags, strict=True) if flag]
    assert added == rows(mixed.synthetic)


@pytest.mark.parametrize('ratio', [0.25, 1, 5])
def test_replace_counts_are_exact_and_places_change_with_the_epoch(
    real: SpectraDataset, generator: Generator, ratio: float
) -> None:
    mixed = MixedDataset(real, generator, ratio, mode='replace')
    places = []
    for epoch in range(2):
        mixed.set_epoch(epoch)
        batch = mixed.batch(range(len(mixed)))
        assert len(mixed) == len(real)
        assert int(batch['synthetic'].sum()) == int(len(real) * ratio / (1 + ratio))
        kept = ~batch['synthetic']
        assert torch.equal(batch['image'][kept], real.tensors()[0][kept])
        places.append(batch['synthetic'])
    assert not torch.equal(*places)


def test_ratio_zero_is_the_real_dataset_and_trains_to_the_same_bits(real: SpectraDataset, generator: Generator) -> None:
    for mode in ('append', 'replace'):
        mixed = MixedDataset(real, generator, 0, mode=mode)
        assert rows(mixed) == rows(real)
        assert not mixed.batch(range(len(mixed)))['synthetic'].any()
    config = ClassifierConfig(hidden=16, layers=2, steps=30, batch_size=16)
    plain, zero = (train_nn1d(d, config, seed=5).state_dict() for d in (real, MixedDataset(real, generator, 0)))
    assert all(torch.equal(plain[key], zero[key]) for key in plain)


def loop(dataset: Dataset[Sample]) -> dict[str, Tensor]:
    """A training loop that knows nothing of hsiaug."""
    torch.manual_seed(0)
    model = torch.nn.Linear(12, 3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for batch in DataLoader(dataset, batch_size=8, shuffle=True):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(batch['image']), batch['label']).backward()
            optimiser.step()
    return model.state_dict()


def test_ratio_zero_is_bit_identical_in_a_loop_that_knows_nothing_of_us(
    real: SpectraDataset, generator: Generator
) -> None:
    plain, zero, half = loop(real), loop(MixedDataset(real, generator, 0)), loop(MixedDataset(real, generator, 0.5))
    assert torch.equal(plain['weight'], zero['weight'])
    assert not torch.equal(plain['weight'], half['weight'])


def stream(mixed: MixedDataset, workers: int, epochs: int) -> list[list[tuple[bytes, int]]]:
    loader = DataLoader(mixed, batch_size=7, num_workers=workers, persistent_workers=workers > 0)
    out = []
    for epoch in range(epochs):
        mixed.set_epoch(epoch)
        out.append([(i.numpy().tobytes(), int(y)) for b in loader for i, y in zip(b['image'], b['label'], strict=True)])
    return out


@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_workers_do_not_change_samples_and_epochs_do(real: SpectraDataset, generator: Generator, mode: str) -> None:
    streams = [stream(MixedDataset(real, generator, 1.0, seed=3, mode=mode), w, 2) for w in (0, 1, 4)]  # type: ignore[arg-type]
    assert streams[0] == streams[1] == streams[2]
    first, second = [Counter(epoch) for epoch in streams[0]]
    assert first != second
    if mode == 'append':
        assert sum((first & second).values()) == len(real)  # the real samples, and only they, come again


@settings(max_examples=25, deadline=None)
@given(
    ratio=st.floats(0, 6),
    mode=st.sampled_from(['append', 'replace']),
    epoch=st.integers(0, 50),
    chunk=st.integers(1, 40),
    seed=st.integers(0, 2**40),
)
def test_counts_and_random_access(
    real: SpectraDataset, generator: Generator, ratio: float, mode: str, epoch: int, chunk: int, seed: int
) -> None:
    source = SyntheticDataset(generator, round(ratio * len(real)) + 1, seed, chunk=chunk)
    mixed = MixedDataset(real, source, ratio, seed=seed, mode=mode)  # type: ignore[arg-type]
    mixed.set_epoch(epoch)
    whole = mixed.batch(range(len(mixed)))
    expected = round(ratio * len(real)) if mode == 'append' else int(np.floor(len(real) * ratio / (1 + ratio) + 1e-9))
    assert int(whole['synthetic'].sum()) == expected
    order = np.random.default_rng(0).permutation(len(mixed))[:17]
    again = copy.copy(mixed)
    again._orders = Kept(2)
    part = again.batch(order.tolist())
    assert all(torch.equal(part[key], whole[key][order]) for key in part)


def test_a_folder_of_the_users_own_mixes_as_well(real: SpectraDataset) -> None:
    own = [{'image': torch.full((12,), float(i)), 'label': torch.tensor(i % 3)} for i in range(10)]

    class Own(Dataset[Sample]):
        def __len__(self) -> int:
            return len(own)

        def __getitem__(self, index: int) -> Sample:
            return own[index]

    mixed = MixedDataset(real, Own(), 5 / len(real))
    batch = mixed.batch(range(len(real), len(mixed)))
    assert len(set(batch['image'][:, 0].tolist())) == 5
    with pytest.raises(ValueError, match='samples are needed, but the synthetic dataset holds 10'):
        MixedDataset(real, Own(), 1.0)
    again = MixedDataset(real, Own(), 1.0, replacement=True)
    drawn = Counter(again.batch(range(len(real), len(again)))['image'][:, 0].tolist())
    assert max(drawn.values()) - min(drawn.values()) <= 1  # every sample once before any twice


def test_an_ignored_label_has_no_soft_one(data: TrainingData) -> None:
    spec = replace(data.spec, ignore_index=255)
    source = fit_generator('mixup', replace(data, spec=spec))
    real = HeldSamples(data.x[:9], torch.tensor([255, *range(3), 255, *range(3), 0]), spec)
    mixed = MixedDataset(real, source, 0.5)
    for batch in (mixed.batch(range(9)), next(iter(DataLoader(mixed, 9)))):
        assert batch['label_prob'][[0, 4]].sum() == 0
        assert torch.equal(batch['label_prob'].argmax(dim=1)[1:4], torch.arange(3))


def test_soft_labels_stand_on_both_sides(real: SpectraDataset, data: TrainingData) -> None:
    mixed = MixedDataset(real, fit_generator('mixup', data, {'partners': 'across'}), 1.0)
    for batch in DataLoader(mixed, batch_size=64, shuffle=True):
        assert torch.allclose(batch['label_prob'].sum(dim=1), torch.ones(len(batch['label'])))
        assert torch.equal(batch['label_prob'].argmax(dim=1), batch['label'])
        hard = batch['label_prob'].amax(dim=1) == 1
        assert hard[~batch['synthetic']].all()


def test_mistakes_are_named(scene: Scene, real: SpectraDataset, generator: Generator, data: TrainingData) -> None:
    for ratio in (-1, float('nan'), float('inf')):
        with pytest.raises(ValueError, match='finite number >= 0'):
            MixedDataset(real, generator, ratio)
    with pytest.raises(ValueError, match='unknown mode'):
        MixedDataset(real, generator, 1, mode='add')  # type: ignore[arg-type]
    other = Scene('other', scene.cube[:, :, :8], scene.labels, scene.class_names)
    fewer = SpectraDataset(other, RandomSplit(fraction=0.4)(other))
    with pytest.raises(SpecMismatchError, match='bands: real 8, synthetic 12'):
        MixedDataset(fewer, generator, 1)
    elsewhere = SpectraDataset(scene, RandomSplit(fraction=0.4)(scene, seed=9))
    with pytest.raises(LeakageError, match='has seen'):
        MixedDataset(elsewhere, generator, 1)
    with pytest.raises(IndexError):
        MixedDataset(real, generator, 1)[10**6]


def test_generator_on_a_gpu_is_refused_in_workers(data: TrainingData) -> None:
    generator = fit_generator('noise', data)
    dataset = SyntheticDataset(generator.to('meta'), 4, real_counts=np.ones(3))
    with pytest.raises(RuntimeError, match='num_workers=0'):
        next(iter(DataLoader(dataset, num_workers=1)))


@pytest.mark.parametrize(
    ('policy', 'total', 'expected'),
    [
        ('real', 10, [5, 3, 2]),
        ('uniform', 10, [4, 3, 3]),
        ('inverse', 31, [6, 10, 15]),
        ('prior', 10, [0, 2, 8]),
        ({'a': 1, 'c': 3}, 8, [2, 0, 6]),
    ],
)
def test_label_policies(policy: object, total: int, expected: list[int]) -> None:
    # prior: of 20 samples 0.2, 0.25, 0.55 are 4, 5, 11; real holds 5, 3, 2, so 0, 2, 9 are lacking and share 10.
    counts = synthetic_counts(
        policy,  # type: ignore[arg-type]
        total,
        ('a', 'b', 'c'),
        np.array([5, 3, 2]),
        np.array([0.2, 0.25, 0.55]),
    )
    assert counts.tolist() == expected
    assert counts.sum() == total


@pytest.mark.parametrize('policy', ['real', 'sqrt', 'inverse'])
def test_frequencies_do_as_well_as_counts(policy: str) -> None:
    counts, names = np.array([50, 30, 20]), ('a', 'b', 'c')
    by_counts = synthetic_counts(policy, 31, names, counts)  # type: ignore[arg-type]
    by_frequencies = synthetic_counts(policy, 31, names, counts / counts.sum())  # type: ignore[arg-type]
    assert by_counts.tolist() == by_frequencies.tolist()
    assert len(set(by_counts.tolist())) == 3


def test_synthetic_labels_have_the_counts_in_every_epoch(generator: Generator) -> None:
    dataset = SyntheticDataset(generator, 90, labels='uniform', chunk=16)
    for epoch in (0, 4):
        dataset.set_epoch(epoch)
        assert torch.bincount(dataset.batch(range(90))['label']).tolist() == [30, 30, 30]
    with pytest.raises(ValueError, match='unknown label policy'):
        SyntheticDataset(generator, 3, labels='all')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='unknown classes'):
        SyntheticDataset(generator, 3, labels={'gold': 1})


def test_transforms_in_place_leave_what_a_dataset_holds(real: SpectraDataset, generator: Generator) -> None:
    def spoil(sample: Sample) -> Sample:
        sample['image'].mul_(100).add_(5)
        sample['label'].fill_(0)
        sample.pop('synthetic')
        return sample

    held: list[Sample] = [real[i] for i in range(len(real))]  # hands out what it holds
    for dataset in (real, held):
        mixed = MixedDataset(dataset, generator, 0.5, transforms=spoil)  # type: ignore[arg-type]
        first = [mixed[i]['image'].clone() for i in range(len(mixed))]
        assert all(torch.equal(mixed[i]['image'], before) for i, before in enumerate(first))
    assert all(torch.equal(sample['image'], real[i]['image']) for i, sample in enumerate(held))


def test_a_default_device_is_for_networks_and_not_for_mixing(
    real: SpectraDataset, generator: Generator, tmp_path: Path
) -> None:
    bank = write_bank(generator, 200, tmp_path / 'bank')
    plain = MixedDataset(real, bank, 0.5)
    batch = real.batch(range(8))
    mixes = [SyntheticMix(bank, 1.0) for _ in range(2)]
    expected = mixes[0](batch)
    torch.set_default_device('meta')
    try:
        mixed = MixedDataset(real, bank, 0.5)
        mixed.set_epoch(2)
        assert mixed.epoch == 2
        mixed.set_epoch(0)
        samples = mixed.__getitems__(range(len(mixed)))
        found = mixes[1](batch)
        state = mixes[1].get_extra_state()
        own = MixedDataset([{'image': sample['image'], 'label': 1} for sample in samples[:9]], bank, 0.5)  # type: ignore[arg-type]
        assert own[0]['label'].device.type == 'cpu'
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert state.device.type == 'cpu'
    for i, sample in enumerate(samples):
        assert all(torch.equal(value, plain[i][key]) for key, value in sample.items())


def test_a_mixture_in_a_mixture_says_of_every_sample_what_it_is() -> None:
    inner = MixedDataset(Toy('spectrum', 20), Toy('spectrum', 40, seed=1), 0.5, weight=0.3)
    outer = MixedDataset(inner, Toy('spectrum', 40, seed=2), 0.5, weight=0.6)
    real = set(keys_of(Toy('spectrum', 20).data['image']))
    for batch in (outer.batch(range(len(outer))), next(iter(DataLoader(outer, len(outer))))):
        assert [key not in real for key in keys_of(batch['image'])] == batch['synthetic'].tolist()
        assert batch['weight'].unique().tolist() == pytest.approx([0.3, 0.6, 1.0])


@pytest.mark.parametrize('index', [slice(2), 1.5, 'image', [1]])
def test_an_index_is_a_whole_number(index: Any) -> None:
    with pytest.raises(TypeError, match=r'one whole number is expected as index, found .*batch\(indices\)'):
        MixedDataset(Toy('spectrum', 4), Toy('spectrum', 4), 0.5)[index]


def test_a_ratio_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match=r'ratio 1e\+20 asks for 4e\+20 synthetic samples'):
        MixedDataset(Toy('spectrum', 4), Toy('spectrum', 4), 1e20, replacement=True)


def test_numbers_of_numpy_are_numbers() -> None:
    """Seeds, sizes and weights that somebody computed."""

    def made(seed: Any, size: Any, weight: Any) -> dict[str, Tensor]:
        mixed = MixedDataset(
            Toy('spectrum', 20), Toy('spectrum', 40, seed=1), 0.5, seed=seed, epoch_size=size, weight=weight
        )
        return mixed.batch(range(len(mixed)))

    plain, other = made(3, 12, 2), made(np.int64(3), np.int32(12), np.float32(2))
    assert all(torch.equal(plain[key], other[key]) for key in plain)
    assert plain['weight'].unique().tolist() == [1, 2]


@pytest.mark.parametrize('weight', [-1, float('nan'), '1'])
def test_a_weight_is_a_number_of_at_least_zero(weight: Any) -> None:
    with pytest.raises(ValueError, match='weight must be'):
        MixedDataset(Toy('spectrum', 4), Toy('spectrum', 4), 0.5, weight=weight)
    with pytest.raises(ValueError, match='weight must be'):
        SyntheticMix(Toy('spectrum', 4), 0.5, weight=weight)


@pytest.mark.parametrize('value', [-1.0, float('nan')])
def test_a_schedule_of_ones_own_gives_ratios(value: float) -> None:
    class Falls(Schedule):
        def __call__(self, epoch: int) -> float:
            return value if epoch else 0.5

    mixed = MixedDataset(Toy('spectrum', 8), Toy('spectrum', 8), Falls())
    mixed.set_epoch(1)
    with pytest.raises(ValueError, match=r'gives .* in epoch 1, expected a ratio >= 0'):
        len(mixed)


def test_batches_of_indices_are_for_the_batch_sampler_of_a_loader() -> None:
    mixed = MixedDataset(Toy('scene', 6), Toy('scene', 8, seed=1))
    batches = BatchSampler(SequentialSampler(mixed), 3, False)
    with pytest.raises(TypeError, match=r'give a sampler of batches to a loader as batch_sampler'):
        next(iter(DataLoader(mixed, batch_size=None, sampler=batches)))
    assert len(next(iter(DataLoader(mixed, batch_sampler=batches)))['image']) == 3
