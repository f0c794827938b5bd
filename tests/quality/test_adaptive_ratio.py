from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from hsiaug.datamodules import SpectraDataModule
from hsiaug.datasets import MixedDataset, SpectraDataset
from hsiaug.quality import AdaptiveRatio, RatioCallback
from hsiaug.scenes import Scene, Split
from hsiaug.systems import TrainingData
from hsiaug.trainers import ClassifierConfig, SpectralClassificationTask, fit_generator, train_nn1d

RATIOS = (0.0, 1.0, 4.0)


def simulate(schedule: AdaptiveRatio, rise: dict[float, float], epochs: int, noise: float = 0.0) -> list[float]:
    """Scores that rise by what the ratio of the epoch is worth."""
    rng, score = np.random.default_rng(0), 0.0
    for epoch in range(epochs):
        score += rise[schedule(epoch)] + noise * float(rng.normal())
        schedule.observe(epoch, score)
    return schedule.scores


@pytest.mark.parametrize('best', RATIOS)
def test_the_ratio_that_helps_is_chosen_most(best: float) -> None:
    late = []
    for seed in range(5):
        schedule = AdaptiveRatio(RATIOS, rate=0.3, seed=seed)
        simulate(schedule, {ratio: 1.0 * (ratio == best) for ratio in RATIOS}, 120, noise=0.3)
        late += schedule.history[60:]
    shares = {ratio: late.count(ratio) / len(late) for ratio in RATIOS}
    assert shares[best] > 0.5
    assert max(shares, key=lambda ratio: shares[ratio]) == best
    assert len(set(late)) == 3  # and yet the others are tried now and then


def test_falling_behind_the_reference_ends_mixing() -> None:
    schedule = AdaptiveRatio(RATIOS, reference=[0.1 * n for n in range(1, 41)], patience=4, tolerance=0.05)
    simulate(schedule, {0.0: 0.1, 1.0: 0.0, 4.0: -0.1}, 40)
    assert schedule.given_up
    assert set(schedule.history[-15:]) == {0.0}
    assert schedule(40) == 0
    level = AdaptiveRatio(RATIOS, reference=[0.1 * n for n in range(1, 41)], patience=4, tolerance=0.05)
    simulate(level, dict.fromkeys(RATIOS, 0.1), 40)
    assert not level.given_up
    assert len(set(level.history[-20:])) > 1


def test_a_round_lasts_its_epochs_and_past_epochs_keep_their_ratio() -> None:
    schedule = AdaptiveRatio(RATIOS, every=5, explore=1.0)
    simulate(schedule, dict.fromkeys(RATIOS, 0.0), 60)
    rounds = np.array(schedule.history).reshape(12, 5)
    assert (rounds == rounds[:, :1]).all()
    assert len(set(rounds[:, 0])) == 3
    assert [schedule(epoch) for epoch in range(60)] == schedule.history
    again = AdaptiveRatio(RATIOS, every=5, explore=1.0)
    simulate(again, dict.fromkeys(RATIOS, 0.0), 60)
    assert again.history == schedule.history
    assert schedule.chances() == pytest.approx([1 / 3] * 3)


def test_a_restored_state_goes_on_as_if_nothing_had_been() -> None:
    rise = {0.0: 0.1, 1.0: 0.3, 4.0: 0.2}
    whole = AdaptiveRatio(RATIOS, every=2, reference=[0.2 * n for n in range(50)], seed=3)
    simulate(whole, rise, 50)
    first = AdaptiveRatio(RATIOS, every=2, reference=[0.2 * n for n in range(50)], seed=3)
    simulate(first, rise, 23)
    second = AdaptiveRatio(RATIOS, every=2, reference=[0.2 * n for n in range(50)], seed=3)
    second.load_state_dict(first.state_dict())
    score = second.scores[-1]
    for epoch in range(23, 50):
        score += rise[second(epoch)]
        second.observe(epoch, score)
    assert second.history == whole.history
    assert np.allclose(second.chances(), whole.chances())


def count_synthetic(loader: DataLoader[Any]) -> int:
    return sum(int(batch['synthetic'].sum()) for batch in loader)


def test_a_state_of_other_ratios_is_refused() -> None:
    state = AdaptiveRatio((0.0, 1.0), seed=1).state_dict()
    for others in ((0.0, 2.0), (0.0, 1.0, 2.0)):
        with pytest.raises(ValueError, match=r'state is of 2 ratios, \[0.0, 1.0\], this schedule of'):
            AdaptiveRatio(others).load_state_dict(state)
    older = {key: value for key, value in state.items() if key != 'ratios'}
    AdaptiveRatio((0.0, 1.0)).load_state_dict(older)
    with pytest.raises(ValueError, match='state is of 2 ratios'):
        AdaptiveRatio((0.0, 1.0, 2.0)).load_state_dict(older)
    with pytest.raises(ValueError, match='ratios must be a list'):
        AdaptiveRatio(1.0)  # type: ignore[arg-type]
    assert AdaptiveRatio(np.array([0.0, 1.0]), reference=np.array([0.5, 0.6])).ratios == (0.0, 1.0)  # type: ignore[arg-type]


def test_persistent_workers_see_the_ratio_change(scene: Scene, split: Split, data: TrainingData) -> None:
    schedule = AdaptiveRatio(RATIOS, explore=1.0)
    mixed = MixedDataset(SpectraDataset(scene, split), fit_generator('noise', data), schedule, mode='replace')
    loader = DataLoader(mixed, 16, num_workers=1, persistent_workers=True)
    counts, expected = [], []
    for epoch in range(6):
        mixed.set_epoch(epoch)
        counts.append(count_synthetic(loader))
        expected.append(int(len(mixed) * schedule(epoch) / (1 + schedule(epoch)) + 1e-9))
        schedule.observe(epoch, 0.0)
    assert counts == expected
    assert len(set(counts)) > 1


def test_training_of_nn1d_tells_the_schedule(scene: Scene, split: Split, data: TrainingData) -> None:
    schedule = AdaptiveRatio(RATIOS, explore=1.0)
    real = SpectraDataset(scene, split)
    mixed = MixedDataset(real, fit_generator('mixup', data, {'partners': 'across'}), schedule, mode='replace')
    seen: list[int] = []

    def after(epoch: int, network: torch.nn.Module) -> None:
        assert not network.training
        seen.append(int(mixed.is_synthetic().sum()))
        schedule.observe(epoch, -float(epoch))

    train_nn1d(mixed, ClassifierConfig(hidden=8, layers=1, steps=30, batch_size=60), after_epoch=after)
    share = [ratio / (1 + ratio) for ratio in schedule.history]
    assert seen == [int(len(real) * part + 1e-9) for part in share]
    assert len(seen) == (30 * 60 - 1) // len(real)  # every epoch but the last, which is not over
    assert len(set(seen)) > 1


class Counts(Callback):
    """Synthetic samples of each epoch, as the task was given them."""

    def __init__(self) -> None:
        self.epochs: dict[int, int] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        found = int(batch['synthetic'].sum())
        self.epochs[trainer.current_epoch] = self.epochs.get(trainer.current_epoch, 0) + found


def lightning(
    scene: Scene, split: Split, data: TrainingData, epochs: int, checkpoint: Path | None = None
) -> tuple[Trainer, AdaptiveRatio, Counts]:
    torch.manual_seed(0)
    schedule, counts = AdaptiveRatio(RATIOS, explore=1.0, seed=1), Counts()
    module = SpectraDataModule(scene, split, fit_generator('noise', data), schedule, 'replace', batch_size=32)
    trainer = Trainer(
        max_epochs=epochs, accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[RatioCallback(schedule, 'val_OA'), counts],
    )  # fmt: skip
    trainer.fit(SpectralClassificationTask(12, 3), module, ckpt_path=checkpoint, weights_only=False)
    return trainer, schedule, counts


def test_lightning_tells_the_schedule_and_keeps_its_state(
    scene: Scene, split: Split, data: TrainingData, tmp_path: Path
) -> None:
    _, whole, counts = lightning(scene, split, data, 6)
    assert len(whole.scores) == 6
    length = len(SpectraDataset(scene, split))
    expected = {epoch: int(length * r / (1 + r) + 1e-9) for epoch, r in enumerate(whole.history)}
    assert counts.epochs == expected
    assert len(set(counts.epochs.values())) > 1
    trainer, _, _ = lightning(scene, split, data, 3)
    trainer.save_checkpoint(tmp_path / 'half.ckpt')
    _, resumed, later = lightning(scene, split, data, 6, tmp_path / 'half.ckpt')
    assert resumed.history == whole.history
    assert later.epochs == {epoch: expected[epoch] for epoch in (3, 4, 5)}


def test_mistakes_are_named(scene: Scene, split: Split, data: TrainingData) -> None:
    with pytest.raises(ValueError, match='0 and other ratios'):
        AdaptiveRatio((1.0, 2.0))
    with pytest.raises(ValueError, match='patience must be at least 1, found 0'):
        AdaptiveRatio(patience=0)
    schedule = AdaptiveRatio()
    with pytest.raises(ValueError, match=r'score of epoch 0 expected, found 0\.5 of epoch 1'):
        schedule.observe(1, 0.5)
    with pytest.raises(ValueError, match='found nan'):
        schedule.observe(0, float('nan'))
    with pytest.raises(ValueError, match="unknown mode 'best'"):
        RatioCallback(schedule, 'val_OA', 'best')  # type: ignore[arg-type]
    module = SpectraDataModule(scene, split, fit_generator('noise', data), schedule, 'replace')
    trainer = Trainer(
        max_epochs=1, accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[RatioCallback(schedule, 'val_loss')],
    )  # fmt: skip
    with pytest.raises(ValueError, match="no metric 'val_loss' is logged; choose from"):
        trainer.fit(SpectralClassificationTask(12, 3), module)
