"""How long an epoch is, and what happens to a source that runs out."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from toys import Toy, keys_of

from hsiaug.datamodules import MixedDataModule
from hsiaug.datasets import MixedDataset
from hsiaug.ratio import Linear, Step
from hsiaug.samplers import MixedBatchSampler, mixed_loader
from hsiaug.transforms import SyntheticMix


def mixture(real: int = 24, source: int = 40, ratio: Any = 0.5, **options: Any) -> MixedDataset:
    return MixedDataset(Toy('spectrum', real), Toy('spectrum', source, seed=1), ratio, **options)


def drawn(mixed: MixedDataset) -> tuple[Counter[bytes], Counter[bytes]]:
    """How often each real and each synthetic sample comes in an epoch."""
    batch = mixed.batch(range(len(mixed)))
    return tuple(Counter(keys_of(batch['image'][batch['synthetic'] == side])) for side in (False, True))  # type: ignore[return-value]


@settings(max_examples=40, deadline=None)
@given(
    real=st.integers(1, 30), source=st.integers(1, 30), ratio=st.floats(0.1, 3), size=st.integers(1, 80),
    mode=st.sampled_from(['append', 'replace']),
)  # fmt: skip
def test_an_epoch_is_as_long_as_it_is_said_to_be(real: int, source: int, ratio: float, size: int, mode: Any) -> None:
    mixed = mixture(real, source, ratio, mode=mode, epoch_size=size, on_exhausted='repeat')
    for epoch in range(2):
        mixed.set_epoch(epoch)
        assert len(mixed) == size
        assert mixed.num_synthetic == mixed.is_synthetic().sum() == int(size * ratio / (1 + ratio) + 1e-9)
        if mode == 'append':
            for found, held in zip(drawn(mixed), (real, source), strict=True):
                assert not found or max(found.values()) == -(-found.total() // held)  # once before any twice


def test_real_samples_of_a_short_epoch_change_and_a_schedule_keeps_its_length() -> None:
    mixed = mixture(24, 40, Linear(0, 1, 2), epoch_size=12)
    sampler = MixedBatchSampler(mixed, 4)
    epochs = []
    for epoch in range(3):
        assert len(list(sampler)) == len(sampler) == 3
        mixed.set_epoch(epoch)
        epochs.append(drawn(mixed))
        assert [side.total() for side in epochs[-1]] == [12 - (0, 4, 6)[epoch], (0, 4, 6)[epoch]]
    assert epochs[0][0].keys() != epochs[1][0].keys()
    plain = DataLoader(Toy('spectrum', 24), 4)
    assert sum(len(batch['image']) for batch in mixed_loader(plain, mixture(ratio=0, epoch_size=8))) == 8


@settings(max_examples=60, deadline=None)
@given(
    real=st.integers(1, 30), held=st.lists(st.integers(1, 40), min_size=2, max_size=2),
    ratios=st.lists(st.floats(0.05, 3), min_size=2, max_size=2),
)  # fmt: skip
def test_an_epoch_ends_with_the_first_source_or_with_the_last(real: int, held: list[int], ratios: list[float]) -> None:
    sources = {name: Toy('spectrum', n, seed=i) for i, (name, n) in enumerate(zip('ab', held, strict=True), 1)}

    def epoch(policy: Any) -> tuple[int, list[int]]:
        mixed = MixedDataset(
            Toy('spectrum', real), sources, dict(zip('ab', ratios, strict=True)), on_exhausted=policy
        )  # fmt: skip
        counts = [int((mixed.source_numbers() == k).sum()) for k in range(3)]
        assert counts[1:] == [round(ratio * counts[0]) for ratio in ratios]
        return counts[0], counts[1:]

    def fits(n: int) -> bool:
        return all(round(ratio * n) <= size for ratio, size in zip(ratios, held, strict=True))

    def used(n: int) -> bool:
        return all(round(ratio * n) >= size for ratio, size in zip(ratios, held, strict=True))

    most = max((n for n in range(real + 1) if fits(n)), default=0)
    if most == 0:
        with pytest.raises(ValueError, match='leaves no real sample'):
            epoch('first_exhausted')
    else:
        assert epoch('first_exhausted')[0] == most
    lasts, _ = epoch('all_exhausted')
    assert lasts >= real
    assert used(lasts)
    assert lasts == real or not used(lasts - 1)


def test_what_is_used_under_each_policy() -> None:
    with pytest.raises(ValueError, match='48 synthetic samples are needed'):
        mixture(24, 10, 2.0)
    for again in (mixture(24, 10, 2.0, on_exhausted='repeat'), mixture(24, 10, 2.0, replacement=True)):
        real, synthetic = drawn(again)
        assert (len(real), real.total(), len(synthetic), synthetic.total()) == (24, 24, 10, 48)
    real, synthetic = drawn(mixture(24, 10, 2.0, on_exhausted='first_exhausted'))
    assert (len(real), real.total(), len(synthetic), synthetic.total()) == (5, 5, 10, 10)
    real, synthetic = drawn(mixture(24, 40, 0.5, on_exhausted='all_exhausted'))
    assert (len(real), len(synthetic), synthetic.total()) == (24, 40, 40)
    assert set(real.values()) == {3, 4}


class Inner(LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(Toy('spectrum', 24), 4)


def test_policies_that_make_no_sense_are_refused_at_construction() -> None:
    source = Toy('spectrum', 40, seed=1)
    for make, what in (
        (lambda: mixture(on_exhausted='stop'), "unknown on_exhausted 'stop'"),
        (lambda: mixture(on_exhausted='first_exhausted', replacement=True), 'give one'),
        (lambda: mixture(on_exhausted='first_exhausted', mode='replace'), "which mode='replace' fixes"),
        (lambda: mixture(on_exhausted='all_exhausted', epoch_size=9), 'which epoch_size fixes'),
        (lambda: mixture(ratio=0.0, on_exhausted='all_exhausted'), 'which is 0 in epoch 0'),
        (lambda: mixture(ratio=Step({0: 1, 7: 0}), on_exhausted='all_exhausted'), 'which is 0 in epoch 7'),
        (lambda: mixture(epoch_size=0), 'epoch_size must be at least 1 or None, found 0'),
        (lambda: mixture(epoch_size=2.5), 'found 2.5'),
        (lambda: mixture(source=3, epoch_size=24), '8 synthetic samples are needed'),
        (lambda: MixedBatchSampler(mixture(epoch_size=7), 8), 'epoch_size=7, less than one batch of 8'),
        (lambda: SyntheticMix(source, on_exhausted='all_exhausted'), 'the loader of the real samples fixes'),
        (lambda: MixedDataModule(Inner(), source, way='batch', epoch_size=8), 'epoch_size=8, but the loader'),
        (lambda: MixedDataModule(Inner(), source, way='batch', on_exhausted='first_exhausted'), 'fixes'),
    ):
        with pytest.raises(ValueError, match=what):
            make()


@pytest.mark.parametrize('way', ['dataset', 'batch'])
def test_the_datamodule_knows_the_same_words(way: Any) -> None:
    module = MixedDataModule(Inner(), Toy('spectrum', 5, seed=1), 1.0, way=way, on_exhausted='repeat')
    module.train_dataloader()
    short = MixedDataModule(Inner(), Toy('spectrum', 5, seed=1), 1.0, way='dataset', epoch_size=10)
    assert sum(len(batch['image']) for batch in short.train_dataloader()) == 10
