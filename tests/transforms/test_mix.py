import copy
import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from toys import Toy, aligned, keys_of

from hsiaug.datasets.contract.batches import fetch_samples
from hsiaug.datasets.mixing.columns import put_rows
from hsiaug.ratio import Linear, SyntheticFirst
from hsiaug.samples import Kind, SpecMismatchError
from hsiaug.systems import Generator, TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms import SyntheticMix

KINDS = ['spectrum', 'scene', 'segmentation', 'change']


def batch_of(toy: Toy, start: int, size: int) -> dict[str, Any]:
    return {key: value[start : start + size] for key, value in toy.data.items()}


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    mode=st.sampled_from(['append', 'replace']),
    ratio=st.floats(0, 4),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    epoch=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_counts_are_exact_and_samples_whole(
    kind: Kind, mode: str, ratio: float, sizes: list[int], epoch: int, seed: int
) -> None:
    real, source = Toy(kind, 60), Toy(kind, 300, seed=1)
    mix, again = (SyntheticMix(source, ratio, mode, seed) for _ in range(2))  # type: ignore[arg-type]
    real_keys, source_keys = set(keys_of(real.data['image'])), set(keys_of(source.data['image']))
    mix.set_epoch(epoch)
    again.set_epoch(epoch)
    seen: list[bytes] = []
    start = 0
    for size in sizes:
        batch = batch_of(real, start, size)
        before = {key: value.clone() for key, value in batch.items()}
        mixed = mix(batch)
        assert all(torch.equal(batch[key], before[key]) for key in batch)  # the caller's batch is left alone
        flags = mixed['synthetic']
        assert {key: value.dtype for key, value in mixed.items() if key != 'synthetic'} == {
            key: value.dtype for key, value in batch.items()
        }
        images = keys_of(mixed['image'])
        assert all((key in source_keys) == bool(flag) for key, flag in zip(images, flags, strict=True))
        assert all((key in real_keys) != bool(flag) for key, flag in zip(images, flags, strict=True))
        if 'mask' in mixed:
            assert aligned(mixed)
        kept = mixed['image'][~flags]
        if mode == 'append':
            assert torch.equal(kept, batch['image'])
        else:
            assert len(flags) == size
            assert torch.equal(kept, batch['image'][~flags])
        seen += [key for key, flag in zip(images, flags, strict=True) if flag]
        repeated = again(batch)
        assert all(torch.equal(mixed[key], repeated[key]) for key in mixed)
        start += size
    total = sum(sizes)
    expected = round(ratio * total) if mode == 'append' else math.floor(total * ratio / (1 + ratio) + 1e-9)
    assert len(seen) == expected == mix.synthetic_seen
    assert max(Counter(seen).values(), default=1) == 1
    assert mix.real_seen == total - (expected if mode == 'replace' else 0)


def test_cutting_batches_otherwise_gives_the_same_synthetic_samples() -> None:
    real, source = Toy('segmentation', 48), Toy('segmentation', 60, seed=1)

    def synthetic(size: int) -> list[bytes]:
        mix = SyntheticMix(source, 1.0, 'append', seed=4)
        return [
            key
            for start in range(0, 48, size)
            for m in [mix(batch_of(real, start, size))]
            for key in keys_of(m['image'][m['synthetic']])
        ]

    assert synthetic(48) == synthetic(8) == synthetic(3)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_ratio_zero_and_eval_change_no_bit(kind: Kind, mode: str) -> None:
    batch = batch_of(Toy(kind, 8), 0, 8)
    zero = SyntheticMix(Toy(kind, 3, seed=1), 0, mode)(batch)  # type: ignore[arg-type]
    assert not zero.pop('synthetic').any()
    evaluated = SyntheticMix(Toy(kind, 9, seed=1), 1.0, mode).eval()(batch)  # type: ignore[arg-type]
    for found in (zero, evaluated):
        assert found.keys() == batch.keys()
        assert all(torch.equal(found[key], batch[key]) for key in batch)


def test_epochs_differ_and_a_resumed_training_goes_on_where_it_was() -> None:
    real, source = Toy('scene', 64), Toy('scene', 200, seed=1)
    mix = SyntheticMix(source, 1.0, seed=2)
    epochs = []
    for epoch in range(2):
        mix.set_epoch(epoch)
        epochs.append([keys_of(mix(batch_of(real, s, 16))['image']) for s in range(0, 64, 16)])
    assert epochs[0] != epochs[1]
    mix.set_epoch(0)
    first = [keys_of(mix(batch_of(real, s, 16))['image']) for s in (0, 16)]
    state = copy.deepcopy(mix.state_dict())
    resumed = SyntheticMix(source, 1.0, seed=2)
    resumed.load_state_dict(state)
    assert first + [keys_of(resumed(batch_of(real, s, 16))['image']) for s in (32, 48)] == epochs[0]
    assert (resumed.real_seen, resumed.synthetic_seen) == (96, 96)


def test_schedules_and_the_end_of_a_bank() -> None:
    real, source = Toy('spectrum', 10), Toy('spectrum', 12, seed=1)
    mix = SyntheticMix(source, Linear(0, 1, 2), 'append')
    counts = []
    for epoch in range(4):
        mix.set_epoch(epoch)
        counts.append(int(mix(batch_of(real, 0, 10))['synthetic'].sum()))
    assert counts == [0, 5, 10, 10]
    with pytest.raises(ValueError, match='call set_epoch'):
        mix(batch_of(real, 0, 10))
    more = SyntheticMix(source, 3.0, 'append', replacement=True)
    assert int(more(batch_of(real, 0, 10))['synthetic'].sum()) == 30
    first = SyntheticMix(source, SyntheticFirst(1), 'replace')
    assert first(batch_of(real, 0, 10))['synthetic'].all()
    first.set_epoch(1)
    assert not first(batch_of(real, 0, 10))['synthetic'].any()


def test_a_live_generator_is_drawn_at_the_policy_and_stays_out_of_the_optimiser(data: TrainingData) -> None:
    generator = fit_generator('mixup', data, {'partners': 'across'})
    mix = SyntheticMix(generator, 1.0, 'append', labels='uniform', weight=0.25)
    batch = {'image': data.x[:48], 'label': data.y[:48]}
    mixed = mix(batch)
    assert torch.equal(mixed['label_prob'][~mixed['synthetic']].argmax(1), data.y[:48])
    assert torch.allclose(mixed['label_prob'].sum(1), torch.ones(96))
    assert mixed['weight'].tolist() == [1.0] * 48 + [0.25] * 48
    assert not list(mix.parameters())
    assert 'live' not in mix.state_dict()
    assert 'spectrum samples, drawn live' in repr(mix)
    policy = SyntheticMix(generator, 64.0, 'append', labels={'material 1': 1})
    assert (policy({'image': data.x[:16], 'label': data.y[:16]})['label'][16:] == 1).float().mean() > 0.6


def test_a_plain_loop_and_text_beside_the_arrays() -> None:
    real = Toy('segmentation', 12, filename='real.tif')
    mix = SyntheticMix(Toy('segmentation', 30, seed=1), 0.5, 'replace')
    for batch in DataLoader(real, 4):
        mixed = mix(batch)
        for name, flag in zip(mixed['filename'], mixed['synthetic'], strict=True):
            assert name == ('' if flag else 'real.tif')
    assert default_collate(fetch_samples(real, torch.arange(2).numpy()))['image'].shape[0] == 2


def test_a_bank_too_small_for_an_epoch_is_an_error_before_the_first_batch() -> None:
    real, source = Toy('segmentation', 64), Toy('segmentation', 20, seed=1)
    with pytest.raises(ValueError, match='64 synthetic samples are needed, but the synthetic dataset holds 20'):
        SyntheticMix(source, 1.0, 'append', real=real)
    SyntheticMix(source, 1.0, 'append', real=real, replacement=True)
    SyntheticMix(source, 0.25, 'append', real=real)
    grows = SyntheticMix(source, Linear(0, 1, 2), 'append', real=real)
    with pytest.raises(ValueError, match='32 synthetic samples are needed'):
        grows.set_epoch(1)
    with pytest.raises(ValueError, match='32 synthetic samples are needed'):
        SyntheticMix(source, Linear(0, 1, 2), 'append').expect(64, epochs=2)


def test_a_batch_that_is_no_dictionary_is_told_the_contract() -> None:
    mix = SyntheticMix(Toy('segmentation', 9), 1.0)
    for batch in ((torch.rand(2, 5, 8, 8), torch.zeros(2, 8, 8)), {'x': torch.rand(2, 5)}, [torch.rand(2)]):
        for module in (mix, mix.eval()):
            with pytest.raises(TypeError, match="'image' and 'label' or 'mask'"):
                module(batch)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_labels_on_a_gpu_are_refused_with_the_first_batch_or_soon_after() -> None:
    mix = SyntheticMix(Toy('segmentation', 200, seed=1), 1.0)
    batch = {key: value.cuda() for key, value in batch_of(Toy('segmentation', 8), 0, 8).items()}
    bad = {**batch, 'mask': batch['mask'] + 1}
    with pytest.raises(SpecMismatchError, match='real masks hold'):
        SyntheticMix(Toy('segmentation', 200, seed=1), 1.0)(bad)
    mix(batch)

    def goes_on() -> None:
        for _ in range(12):
            mix(bad)

    with pytest.raises(SpecMismatchError, match='real masks hold'):
        goes_on()


def wrong(change: str) -> dict[str, Tensor]:
    batch = batch_of(Toy('segmentation', 4), 0, 4)
    if change == 'bands':
        batch['image'] = batch['image'][:, :3]
    elif change == 'size':
        batch = {key: value[..., :4] for key, value in batch.items()}
    elif change == 'dtype':
        batch['mask'] = batch['mask'].float()
    elif change == 'key':
        batch['boxes'] = torch.zeros(4, 2)
    else:
        batch['label'] = torch.zeros(4, dtype=torch.int64)
        del batch['mask']
    return batch


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('bands', r"'image': real shape \(3, 8, 8\), synthetic \(5, 8, 8\)"),
        ('size', r"'mask': real shape \(8, 4\), synthetic \(8, 8\)"),
        ('dtype', "'mask': real dtype torch.float32, synthetic torch.int64"),
        ('key', "'boxes': real samples have it, synthetic ones do not"),
        ('kind', "source holds samples of kind 'segmentation' with 'mask', the batch has"),
    ],
)
@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_what_does_not_fit_is_named(change: str, message: str, mode: str) -> None:
    mix = SyntheticMix(Toy('segmentation', 30, seed=1), 1.0, mode)  # type: ignore[arg-type]
    with pytest.raises(SpecMismatchError, match=message):
        mix(wrong(change))


def test_mistakes_at_construction(data: TrainingData) -> None:
    generator: Generator = fit_generator('noise', data)
    for ratio in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match='finite number >= 0'):
            SyntheticMix(generator, ratio)
    with pytest.raises(ValueError, match='unknown mode'):
        SyntheticMix(generator, 1.0, 'add')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='unknown label policy'):
        SyntheticMix(generator, 1.0, labels='all')  # type: ignore[arg-type]


@pytest.mark.parametrize('side', [2, 80])  # below and above the size from which whole rows are copied
def test_rows_are_put_in_their_places(side: int) -> None:
    value, rows = torch.rand(5, 3, side, side), torch.rand(2, 3, side, side)
    before = value.clone()
    out = put_rows(value, torch.tensor([4, 1]), rows)
    assert torch.equal(value, before)
    assert torch.equal(out[[4, 1]], rows)
    assert torch.equal(out[[0, 2, 3]], value[[0, 2, 3]])


def test_float16_is_refused_where_it_would_make_infinity() -> None:
    source = Toy('segmentation', 20)
    source.data['image'] *= 9e4
    batch = {**batch_of(source, 0, 4), 'image': torch.ones(4, 5, 8, 8, dtype=torch.float16)}
    with pytest.raises(SpecMismatchError, match=r'found images of dtype torch.float16, which cannot hold'):
        SyntheticMix(source, 1.0, different_scales=True)(batch)
    source.data['image'] /= 9e4
    assert SyntheticMix(source, 1.0, different_scales=True)(batch)['image'].dtype == torch.float16


@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_what_was_mixed_before_stays_synthetic_and_weighs_what_it_weighs(mode: Any) -> None:
    """One mix after the other, and real samples with weights of their own."""
    real, source = Toy('scene', 40), Toy('scene', 200, seed=1)
    batch = {**batch_of(real, 0, 8), 'weight': torch.arange(8.0)}
    once = SyntheticMix(source, 0.5, mode=mode, weight=0.1)(batch)
    twice = SyntheticMix(source, 0.5, mode=mode, weight=0.2, seed=7)(once)
    drawn = set(keys_of(source.data['image']))
    assert [key in drawn for key in keys_of(twice['image'])] == twice['synthetic'].tolist()
    known = dict(zip(keys_of(real.data['image']), range(8), strict=False))
    for key, weight in zip(keys_of(twice['image']), twice['weight'].tolist(), strict=True):
        assert weight == known[key] if key in known else weight in (pytest.approx(0.1), pytest.approx(0.2))


@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_an_empty_batch_stays_empty(mode: Any) -> None:
    toy = Toy('segmentation', 4)
    mixed = SyntheticMix(toy, 1.0, mode)({'image': toy.data['image'][:0], 'mask': toy.data['mask'][:0]})
    assert {key: len(value) for key, value in mixed.items()} == {'image': 0, 'mask': 0, 'synthetic': 0}


def test_one_sample_is_no_batch() -> None:
    toy = Toy('segmentation', 4)
    with pytest.raises(TypeError, match="found ndarray as 'image'; make a tensor of it"):
        SyntheticMix(toy, 1.0)({key: value.numpy() for key, value in toy.data.items()})
    with pytest.raises(SpecMismatchError, match=r'of shape \(5, 8, 8\) is one sample, a batch \(B, 5, 8, 8\)'):
        SyntheticMix(toy, 1.0)(toy[0])


@pytest.mark.parametrize('dtype', [torch.uint16, torch.uint32])
def test_rows_of_unsigned_numbers_are_replaced(dtype: torch.dtype) -> None:
    value, rows = torch.arange(12).reshape(4, 3).to(dtype), torch.full((1, 3), 9).to(dtype)
    assert put_rows(value, torch.tensor([2]), rows)[2].tolist() == [9, 9, 9]


def test_what_is_no_epoch_and_a_batch_whose_sides_differ_in_length_are_refused() -> None:
    mix = SyntheticMix(Toy('spectrum', 30), 1.0).train()
    for epoch in (-1, 1.5, '1', True):
        with pytest.raises(ValueError, match='epoch'):
            mix.set_epoch(epoch)  # type: ignore[arg-type]
    mix.set_epoch(torch.tensor(2))  # type: ignore[arg-type]
    assert mix.epoch == 2
    batch = default_collate([Toy('spectrum', 6)[k] for k in range(3)])
    with pytest.raises(SpecMismatchError, match=r"3 images has \{'label': 2\}"):
        mix({**batch, 'label': batch['label'][:2]})
    assert len(mix(batch)['image']) == 3
