"""Several named sources at once: exact counts of each, tags, labels and schedules of their own, in every way."""

from collections import Counter
from typing import Any

import albumentations as A
import kornia.augmentation as K
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, StackDataset
from toys import Toy, aligned, keys_of

from hsiaug.datasets import MixedDataset
from hsiaug.ratio import Linear, Step, SyntheticFirst, source_counts
from hsiaug.samplers import MixedBatchSampler
from hsiaug.samples import Kind, SpecMismatchError
from hsiaug.systems import Generator, TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms import SyntheticMix
from hsiaug.transforms.albumentations import SyntheticMix as AlbumentationsMix
from hsiaug.transforms.kornia import RandomSyntheticMix


def two(kind: Kind, n: int = 60) -> dict[str, Any]:
    return {'gan': Toy(kind, n, seed=1), 'paste': Toy(kind, n, seed=2)}


@pytest.mark.parametrize('mode', ['replace', 'append'])
def test_the_source_that_does_not_fit_the_batch_is_compared_with_it(mode: Any) -> None:
    label = torch.zeros(40, dtype=torch.int64)
    odd, fits = (StackDataset(image=torch.rand(40, bands), label=label) for bands in (5, 4))
    for sources in ({'a': odd, 'b': fits}, {'a': fits, 'b': odd}):
        mix = SyntheticMix(sources, {'a': 0.5, 'b': 0.5}, mode=mode)
        with pytest.raises(SpecMismatchError, match=r'real shape \(4,\), synthetic \(5,\)'):
            mix({'image': torch.rand(8, 4), 'label': label[:8]})


def origin(batch: dict[str, Any], real: Toy, sources: dict[str, Toy]) -> list[int]:
    """What each sample is by its content: 0 for a real one, k for one of the k-th source."""
    known = dict.fromkeys(keys_of(real.data['image']), 0)
    for number, source in enumerate(sources.values(), 1):
        known |= dict.fromkeys(keys_of(source.data['image']), number)
    return [known[key] for key in keys_of(batch['image'])]


@settings(max_examples=60, deadline=None)
@example(ratios=[4.0, 0.5, 0.3125, 0.3125], sizes=[*[5] * 4, 3], mode='replace')  # 18.9 places in one of four sources
@given(
    ratios=st.lists(st.floats(0, 4), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 9), max_size=40),
    mode=st.sampled_from(['append', 'replace']),
)
def test_counts_of_batches_are_never_negative_and_add_up(ratios: list[float], sizes: list[int], mode: Any) -> None:
    seen, dealt = 0, np.zeros(len(ratios), dtype=int)
    for size in sizes:
        counts = np.subtract(source_counts(seen + size, ratios, mode), source_counts(seen, ratios, mode))
        assert (counts >= 0).all()
        assert mode == 'append' or counts.sum() <= size
        seen, dealt = seen + size, dealt + counts
    if mode == 'append':
        assert dealt.tolist() == [round(ratio * seen) for ratio in ratios]
    else:
        total = int(np.floor(seen * sum(ratios) / (1 + sum(ratios)) + 1e-9))
        assert dealt.sum() == total
        if total:
            share = np.array(ratios) / sum(ratios)
            bound = 0.5 + share * (len(ratios) - 2) / 2  # each rounds by up to half, and shares the roundings of others
            assert (np.abs(dealt - total * share) <= np.maximum(bound, 0.5) + 1e-9).all()


@pytest.mark.parametrize('kind', ['spectrum', 'segmentation', 'change'])
@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_every_sample_says_its_source_and_counts_are_exact(kind: Kind, mode: Any) -> None:
    real, sources = Toy(kind, 40), two(kind)
    mixed = MixedDataset(real, sources, {'gan': 0.5, 'paste': Step({0: 1.0, 1: 0.25})}, seed=3, mode=mode)
    assert mixed.source_names == ('real', 'gan', 'paste')
    expected = {('append', 0): [40, 20, 40], ('append', 1): [40, 20, 10], ('replace', 0): [16, 8, 16]}
    expected['replace', 1] = [23, 11, 6]  # floor(40 · 0.75/1.75) = 17 places, dealt out 2 : 1
    loader = DataLoader(mixed, batch_sampler=MixedBatchSampler(mixed, 8, seed=1))
    for epoch in range(2):
        batches = list(loader)
        tags = torch.cat([batch['source'] for batch in batches])
        assert tags.dtype == torch.int64
        assert torch.bincount(tags, minlength=3).tolist() == expected[mode, epoch]
        for batch in batches:
            assert batch['source'].tolist() == origin(batch, real, sources)
            assert torch.equal(batch['synthetic'], batch['source'] > 0)
            assert kind == 'spectrum' or aligned(batch)
            for k, count in enumerate(expected[mode, epoch][1:], 1):  # each source is spread over the epoch
                share = count / len(tags)
                assert abs(int((batch['source'] == k).sum()) - share * len(batch['source'])) < 2
        seen = Counter(key for batch in batches for key in keys_of(batch['image']))
        assert max(seen.values()) == 1
    mixed.set_epoch(1)
    samples = [mixed[i] for i in range(len(mixed))]
    whole = mixed.batch(range(len(mixed)))
    assert [int(sample['source']) for sample in samples] == whole['source'].tolist() == mixed.source_numbers().tolist()
    assert all(torch.equal(sample['image'], image) for sample, image in zip(samples, whole['image'], strict=True))


def test_the_first_of_several_sources_is_drawn_as_it_would_be_alone() -> None:
    real, sources = Toy('scene', 40), two('scene')
    alone = MixedDataset(real, sources['gan'], 0.5, seed=3)
    both = MixedDataset(real, sources, {'gan': 0.5, 'paste': 1.0}, seed=3)
    one, other = alone.batch(range(60)), both.batch(range(60))
    assert other.pop('source').tolist() == [0] * 40 + [1] * 20
    assert all(torch.equal(one[key], other[key]) for key in one)
    named = MixedDataset(real, {'gan': sources['gan']}, 0.5, seed=3).batch(range(60))
    assert torch.equal(named['image'], one['image'])
    assert 'source' not in one


def test_each_source_has_its_own_labels_and_live_ones_mix_with_stored_ones(data: TrainingData) -> None:
    generator: Generator = fit_generator('noise', data)
    soft = fit_generator('mixup', data)
    real = [{'image': x, 'label': y} for x, y in zip(data.x, data.y, strict=True)]
    labels: Any = {'gan': 'uniform', 'own': {'material 0': 1}, 'soft': None}
    sources: Any = {'gan': generator, 'own': generator, 'soft': soft}
    ratios = {'gan': 60 / len(real), 'own': 30 / len(real), 'soft': 10 / len(real)}
    mixed = MixedDataset(real, sources, ratios, labels=labels)  # type: ignore[arg-type]
    batch = mixed.batch(range(len(mixed)))
    assert torch.bincount(batch['label'][batch['source'] == 1]).tolist() == [20, 20, 20]
    assert batch['label'][batch['source'] == 2].tolist() == [0] * 30
    assert torch.equal(batch['label_prob'].argmax(dim=1), batch['label'])
    gan, own = (batch['image'][batch['source'] == k] for k in (1, 2))
    assert not set(keys_of(gan)) & set(keys_of(own))  # streams of their own
    mix = SyntheticMix(sources, ratios, labels=labels, real=real)  # type: ignore[arg-type]
    for start in range(0, len(real), 16):
        part = mix({key: torch.stack([s[key] for s in real[start : start + 16]]) for key in ('image', 'label')})
        assert (part['label'][part['source'] == 2] == 0).all()
    assert sum(mix.source_seen.values()) == mix.synthetic_seen


@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_batches_are_mixed_in_exact_counts_and_resume(mode: Any) -> None:
    real, sources = Toy('segmentation', 41), two('segmentation')
    ratios: Any = {'gan': Linear(0, 0.5, 1), 'paste': 0.75}

    def mixes() -> SyntheticMix:
        return SyntheticMix(sources, ratios, mode, seed=2, real=real)

    mix, again, out = mixes(), mixes(), []
    for epoch in range(2):
        mix.set_epoch(epoch)
        out.append([mix(batch) for batch in DataLoader(real, 6)])
        tags = torch.cat([batch['source'] for batch in out[-1]])
        found = torch.bincount(tags, minlength=3).tolist()
        assert found[1:] == source_counts(41, [0.5 * epoch, 0.75], mode)
        assert found[0] == (41 if mode == 'append' else 41 - sum(found[1:]))
        for batch in out[-1]:
            assert aligned(batch)
            assert batch['source'].tolist() == origin(batch, real, sources)
    assert mix.source_seen == dict(
        zip(sources, np.sum([source_counts(41, [r, 0.75], mode) for r in (0, 0.5)], 0), strict=True)
    )
    half = mixes()
    half.set_epoch(1)
    batches = list(DataLoader(real, 6))
    first = [half(batch) for batch in batches[:3]]
    again.load_state_dict(half.state_dict())
    rest = [again(batch) for batch in batches[3:]]
    for one, other in zip([*first, *rest], out[1], strict=True):
        assert all(torch.equal(one[key], other[key]) for key in other)
    with pytest.raises(ValueError, match='a state of 2 sources has 13 numbers, found 9'):
        mixes().set_extra_state(SyntheticMix(sources['gan'], 1.0).get_extra_state())


def test_one_of_several_may_come_first_alone() -> None:
    real, sources = Toy('spectrum', 20), two('spectrum')
    mixed = MixedDataset(real, sources, {'gan': SyntheticFirst(1), 'paste': 0.25}, mode='replace')
    assert np.bincount(mixed.source_numbers(0), minlength=3).tolist() == [0, 20, 0]
    assert np.bincount(mixed.source_numbers(1), minlength=3).tolist() == [16, 0, 4]


def test_gated_transforms_draw_from_all_sources() -> None:
    real, sources = Toy('segmentation', 64), two('segmentation', 200)
    torch.manual_seed(0)
    child = RandomSyntheticMix(sources, ratio={'gan': 0.5, 'paste': 1.5})
    augment = K.AugmentationSequential(child, data_keys=None)
    compose = A.Compose([AlbumentationsMix(sources, ratio={'gan': 0.5, 'paste': 1.5})])
    found: dict[str, list[int]] = {'kornia': [], 'albumentations': []}
    whole = real.data
    for _ in range(12):
        out = augment(dict(whole))
        assert aligned({**out, 'mask': out['mask'].squeeze(1)})
        found['kornia'] += origin(out, real, sources)
    replayed = augment(dict(whole), params=augment._params)
    assert torch.equal(replayed['image'], out['image'])
    for _ in range(6):
        for image, mask in zip(whole['image'], whole['mask'], strict=True):
            one = compose(image=image.permute(1, 2, 0).numpy(), mask=mask.numpy())
            drawn = {'image': torch.from_numpy(one['image']).permute(2, 0, 1)[None].contiguous()}
            assert aligned({**drawn, 'mask': torch.from_numpy(one['mask'])[None]})
            found['albumentations'] += origin(drawn, real, sources)
    for tags in found.values():
        shares = np.bincount(tags, minlength=3) / len(tags)
        assert np.abs(shares - np.array([1, 0.5, 1.5]) / 3).max() < 0.08
    with pytest.raises(ValueError, match=r'for several sources, give the ratio of each, found p=0\.5'):
        RandomSyntheticMix(sources, p=0.5)


def test_mistakes_are_named() -> None:
    real, sources = Toy('segmentation', 20), two('segmentation')
    for make in (lambda *a, **k: MixedDataset(real, *a, **k), SyntheticMix, RandomSyntheticMix, AlbumentationsMix):
        with pytest.raises(
            ValueError, match=r"2 sources need a ratio each, found 0\.5; give ratio=\{'gan': \.\.\., 'pa"
        ):
            make(sources, 0.5)
        with pytest.raises(
            ValueError, match=r"ratio for unknown sources \['pste'\]; the sources are \['gan', 'paste'\]"
        ):
            make(sources, {'gan': 1, 'pste': 1})
        with pytest.raises(ValueError, match=r"ratio missing for the sources \['paste'\]"):
            make(sources, {'gan': 1})
        with pytest.raises(ValueError, match=r"labels for unknown sources \['x'\]"):
            make(sources, {'gan': 1, 'paste': 1}, labels={'x': 'uniform'})
        with pytest.raises(ValueError, match=r"cannot be called \['mask'\], which are keys of samples"):
            make({'mask': sources['gan']}, 0.5)
        with pytest.raises(ValueError, match='one source without a name was given'):
            make(sources['gan'], {'gan': 0.5})
        with pytest.raises(ValueError, match='no source given'):
            make({}, 0.5)
        other = Toy('segmentation', 9, seed=4)
        other.spec = type(other.spec)(**{**other.spec.to_dict(), 'classes': ('a', 'b', 'x')})
        with pytest.raises(
            SpecMismatchError, match=r"sources of synthetic.*\n.*classes: source 'gan' .*source 'other'"
        ):
            make({'gan': sources['gan'], 'other': other}, {'gan': 0.1, 'other': 0.1})
    small = {'gan': sources['gan'], 'paste': Toy('segmentation', 5)}
    with pytest.raises(ValueError, match="20 synthetic samples are needed, but the source 'paste' holds 5"):
        MixedDataset(real, small, {'gan': 1, 'paste': 1})
    bright = Toy('segmentation', 60, seed=2)
    bright.data['image'] *= 10_000
    with pytest.raises(SpecMismatchError, match=r'in synthetic \(paste\) samples'):
        MixedDataset(real, {'gan': sources['gan'], 'paste': bright}, {'gan': 1, 'paste': 1})
    tagged = Toy('segmentation', 20, source=torch.tensor(3))
    with pytest.raises(ValueError, match=r"real samples have the keys \['source'\]"):
        MixedDataset(tagged, sources, {'gan': 1, 'paste': 1})
    with pytest.raises(ValueError, match=r"real samples have the keys \['gan'\]"):
        SyntheticMix(sources, {'gan': 1, 'paste': 1})(next(iter(DataLoader(Toy('segmentation', 9, gan=1), 3))))
