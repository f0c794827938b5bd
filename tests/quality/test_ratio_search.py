import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_scene
from torch import Tensor

from hsiaug.datasets import PatchDataset
from hsiaug.quality import (
    Candidate,
    FoldTrial,
    Gated,
    PatchTrial,
    RangeGate,
    RatioChoice,
    RatioSearch,
    Recorded,
    SpectraTrial,
    Standing,
)
from hsiaug.samples import LeakageError
from hsiaug.scenes import BitemporalScene, HalvesSplit, PatchSplitter, SimulatedScene
from hsiaug.systems import Generator, TrainingData
from hsiaug.trainers import ChangeDetectorConfig, ClassifierConfig, SegmenterConfig, fit_generator, training_data

FAST = ClassifierConfig(hidden=16, layers=2, steps=40, lr=1e-2)


@dataclass
class Known:
    """A trial whose differences to ratio 0 are known but for noise that depends on fold and seed."""

    gain: dict[float, float]
    noise: float = 0.0
    cost: float = 1.0
    identity: str = 'known'
    calls: list[tuple[Candidate, int, int]] = field(default_factory=list)

    def __call__(self, candidate: Candidate, fold: int, seed: int) -> float:
        self.calls.append((candidate, fold, seed))
        rng = np.random.default_rng([fold, seed, round(100 * candidate.ratio)])
        level = np.random.default_rng([fold, seed]).normal()  # folds differ much, pairs little
        return level + self.gain.get(candidate.ratio, 0.0) + self.noise * rng.normal()


@dataclass
class Listed:
    """A trial that returns listed scores, by ratio and order."""

    scores: dict[float, list[float]]
    at: dict[float, int] = field(default_factory=dict)

    def __call__(self, candidate: Candidate, fold: int, seed: int) -> float:
        self.at[candidate.ratio] = self.at.get(candidate.ratio, -1) + 1
        return self.scores[candidate.ratio][self.at[candidate.ratio]]


def test_the_race_halves_the_candidates_and_counts_what_it_costs() -> None:
    trial = Known({0.5: 0.01, 1.0: 0.02, 2.0: 0.04, 5.0: -0.1}, cost=0.25)
    choice = RatioSearch()(trial)
    # 4 candidates and ratio 0 take 2 trials, 2 and ratio 0 the next 2, 1 and ratio 0 the last 2.
    assert choice.trainings == len(trial.calls) == 2 * 5 + 2 * 3 + 2 * 2
    assert choice.cost == 5.0
    assert choice.ratio == 2.0
    assert [s.candidate.ratio for s in choice.standings] == [2.0, 1.0, 0.5, 5.0]
    assert [s.trials for s in choice.standings] == [6, 4, 2, 2]
    assert choice.standings[0].mean == pytest.approx(0.04)
    # Pairs share fold and seed; two deals of three folds each.
    by_ratio = {r: [call[1:] for call in trial.calls if call[0].ratio == r] for r in (0.0, 2.0)}
    assert by_ratio[0.0] == by_ratio[2.0]
    assert [fold for fold, _ in by_ratio[0.0]] == [0, 1, 2, 0, 1, 2]
    assert len({seed for _, seed in by_ratio[0.0]}) == 2
    without = RatioSearch(first=6)(Known(trial.gain))
    assert without.trainings == 30
    assert without.ratio == 2.0


def test_standard_error_and_fall_back_by_hand() -> None:
    scores = {0.0: [0.5, 0.5, 0.5, 0.5], 1.0: [0.5, 0.6, 0.5, 0.6]}
    choice = RatioSearch((1.0,), trials=4, folds=3, k=1.0)(Listed(scores))
    # differences 0, .1, 0, .1: mean .05, sd .1/sqrt(3); validation has half as many samples as training
    error = 0.1 / math.sqrt(3) * math.sqrt(1 / 4 + 1 / 2)
    assert choice.standings == (Standing(Candidate(1.0), 4, pytest.approx(0.05), pytest.approx(error)),)
    assert error == pytest.approx(0.05)
    for k, ratio in ((0.0, 1.0), (0.99, 1.0), (1.01, 0.0), (2.0, 0.0)):
        assert choice.decided(k).ratio == ratio
        assert RatioSearch((1.0,), trials=4, folds=3, k=k)(Listed(scores)).ratio == ratio


def test_ties_and_losses_fall_back_to_zero_and_equal_candidates_to_the_lower_ratio() -> None:
    assert RatioSearch(k=0.0)(Known({})).ratio == 0
    assert RatioSearch(k=0.0)(Known(dict.fromkeys((0.5, 1.0, 2.0, 5.0), -0.01))).ratio == 0
    same = Listed({r: [0.5 + 0.125 * (r > 0)] * 6 for r in (0.0, 0.5, 1.0, 2.0, 5.0)})
    assert RatioSearch(k=0.0)(same).ratio == 0.5


def test_one_trial_has_no_standard_error() -> None:
    search = RatioSearch((1.0, 2.0), trials=1, first=1, k=0.0)
    choice = search(Known({1.0: 0.1, 2.0: 0.2}))
    assert choice.ratio == 2.0
    assert choice.decided(0.5).ratio == 0
    assert choice.to_dict()['standings'][0]['standard_error'] is None
    assert 'ratio 2' in str(choice)


def test_more_standard_errors_harm_less_and_gain_less() -> None:
    chosen: dict[tuple[float, float], list[float]] = {}
    for seed in range(60):
        for gain in (0.0, 0.03):
            choice = RatioSearch(seed=seed)(Known(dict.fromkeys((0.5, 1.0, 2.0, 5.0), gain), noise=0.02))
            for k in (0.0, 1.0, 2.0):
                chosen.setdefault((gain, k), []).append(choice.decided(k).ratio)
    mixed = {key: np.mean(np.array(ratios) > 0) for key, ratios in chosen.items()}
    assert mixed[0.0, 0.0] > mixed[0.0, 1.0] > mixed[0.0, 2.0]
    assert mixed[0.0, 2.0] < 0.1
    assert mixed[0.03, 1.0] > 0.8


def test_pooling_finds_what_no_scene_shows_by_itself() -> None:
    scenes = {f'scene {n}': Known({0.5: 0.01, 1.0: 0.012, 2.0: 0.015, 5.0: 0.0}, noise=0.03) for n in range(8)}
    for number, trial in enumerate(scenes.values()):
        trial.__class__ = type('Shifted', (Known,), {'__call__': _shifted(1000 * number)})
    search = RatioSearch(first=6, k=1.0)
    alone = [search(trial) for trial in scenes.values()]
    together = search.pooled(scenes)
    assert together.ratio > 0
    assert together.standings[0].standard_error < np.mean([c.standings[0].standard_error for c in alone])
    assert together.trainings == 8 * 30
    assert sum(choice.ratio > 0 for choice in alone) < 8


def _shifted(offset: int) -> Any:
    return lambda self, candidate, fold, seed: Known.__call__(self, candidate, fold, seed + offset)


def test_other_scenes_are_a_prior_weighed_by_variance() -> None:
    def other(mean: float) -> RatioChoice:
        return RatioChoice(Candidate(0.0), (Standing(Candidate(1.0), 6, mean, 0.01),), 1.0, 12, 12.0)

    own = Listed({0.0: [0.5] * 4, 1.0: [0.5, 0.6, 0.5, 0.6]})  # mean .05, variance .0025, see above
    choice = RatioSearch((1.0,), trials=4, k=1.0)(own, [other(0.1), other(0.3)])
    prior = 0.02 * 1.5  # variance of .1 and .3, and that of their mean
    weights = 1 / 0.0025, 1 / prior
    (found,) = choice.standings
    assert found.mean == pytest.approx((0.05 * weights[0] + 0.2 * weights[1]) / sum(weights))
    assert found.standard_error == pytest.approx(sum(weights) ** -0.5)
    assert choice.ratio == 1.0
    with pytest.raises(ValueError, match='a single other scene'):
        RatioSearch((1.0,))(own, [other(0.1)])
    with pytest.raises(ValueError, match=r'without \[Candidate\(ratio=2.0'):
        RatioSearch((1.0, 2.0))(own, [other(0.1), other(0.2)])


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / 'deep' / 'scores.jsonl'
    gain = {0.5: 0.01, 2.0: 0.05}
    plain = RatioSearch()(Known(gain))
    for stop in (1, 7, 12):
        trial = Known(gain)

        def killed(candidate: Candidate, fold: int, seed: int, trial: Known = trial, stop: int = stop) -> float:
            if len(trial.calls) == stop:
                raise KeyboardInterrupt
            return trial(candidate, fold, seed)

        killed.identity = 'known'  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            RatioSearch()(Recorded(killed, path))
        path.write_bytes(path.read_bytes()[:-9])  # torn in the middle of a line
    rest = Known(gain)
    assert RatioSearch()(Recorded(rest, path)) == plain
    assert len(rest.calls) == 20 - (1 + 7 + 12) + 3  # each tear cost one training
    other = Known(gain, identity='another')
    RatioSearch()(Recorded(other, path))
    assert len(other.calls) == 20


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match='at least one ratio above 0'):
        RatioSearch((0.0,))
    with pytest.raises(ValueError, match='first must be at most trials, found 4 and 3'):
        RatioSearch(trials=3, first=4)
    with pytest.raises(ValueError, match='must be a finite number >= 0'):
        RatioSearch((-1.0,))
    with pytest.raises(ValueError, match='on fold 0: a finite score expected, found nan'):
        RatioSearch()(lambda candidate, fold, seed: math.nan)
    with pytest.raises(ValueError, match='on fold 0: a finite score expected, found None'):
        RatioSearch()(lambda candidate, fold, seed: None)  # type: ignore[arg-type, return-value]
    for given in ({'ratios': 2.0}, {'thresholds': 0.5}):
        with pytest.raises(ValueError, match=f'{next(iter(given))} must be a list'):
            RatioSearch(**given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='at least one scene'):
        RatioSearch().pooled({})


# --- on scenes ------------------------------------------------------------------------------------------------------

SCENE = make_scene(32, 32)
SPLIT = HalvesSplit(per_class=12)(SCENE, 0)


def test_spectra_are_scored_on_folds_that_nothing_was_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []
    fit = SpectraTrial._source

    def spy(self: Any, candidate: Candidate, fold: int, seed: int, held: Any) -> Any:
        source: Any = fit(self, candidate, fold, seed, held)
        seen.append(set(source.provenance.seen.pixels().tolist()) & set(held.test.tolist()))
        assert not set(source.provenance.seen.pixels().tolist()) & set(SPLIT.test.tolist())
        return source

    monkeypatch.setattr(SpectraTrial, '_source', spy)
    trial = SpectraTrial(SCENE, SPLIT, 'noise', FAST)
    first = [trial(Candidate(ratio), fold, 3) for ratio in (0.0, 1.0) for fold in (0, 1)]
    assert seen == [set(), set()]
    again = SpectraTrial(SCENE, SPLIT, 'noise', FAST)
    assert [again(Candidate(ratio), fold, 3) for ratio in (0.0, 1.0) for fold in (0, 1)] == first
    quarter = SpectraTrial(SCENE, SPLIT, 'noise', FAST, share=0.25)
    assert quarter.cost == 0.25
    assert quarter.config.steps == 10
    assert len({t.identity for t in (trial, again, quarter)}) == 2
    assert trial.identity == again.identity


class Mislabelled(Generator):
    """Spectra of the next class."""

    def __init__(self, wrapped: Generator, shift: int = 1) -> None:
        super().__init__(wrapped.spec)
        self.wrapped, self.shift, self.provenance = wrapped, shift, wrapped.provenance

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return self.wrapped._draw((labels + self.shift) % self.spec.num_classes, rng)


def wrongly(generator: Generator, data: TrainingData, regions: Tensor, threshold: float) -> Any:
    assert regions.shape == data.y.shape
    return Mislabelled(generator, int(threshold))


def test_a_harmful_source_is_left_out_and_a_gate_that_mends_it_is_chosen() -> None:
    trial = SpectraTrial(SCENE, SPLIT, 'noise', FAST, gate=wrongly)
    harmful = RatioSearch((2.0,), (1.0,), trials=3, k=0.0)(trial)
    assert harmful.ratio == 0
    assert harmful.standings[0].mean < -0.1
    both = RatioSearch((2.0,), (1.0, 0.0), trials=3, first=3, k=0.0)(trial)
    assert both.standings[0].candidate == Candidate(2.0, 0.0)
    assert both.chosen in (Candidate(2.0, 0.0), Candidate(0.0))
    with pytest.raises(ValueError, match='has a threshold, but there is no gate'):
        SpectraTrial(SCENE, SPLIT, 'noise', FAST)(Candidate(1.0, 0.5), 0, 0)
    with pytest.raises(ValueError, match="unknown metric 'miou'"):
        SpectraTrial(SCENE, SPLIT, 'noise', FAST, metric='miou')
    with pytest.raises(ValueError, match='share of the steps'):
        SpectraTrial(SCENE, SPLIT, 'noise', FAST, share=0.0)


def by_range(generator: Generator, data: TrainingData, regions: Tensor, threshold: float) -> Any:
    return Gated(generator, [RangeGate(threshold).fit(data, regions)], tries=40)


def test_gates_of_the_package_take_the_threshold() -> None:
    trial = SpectraTrial(SCENE, SPLIT, 'noise', FAST, gate=by_range)
    strict = trial(Candidate(2.0, 0.5), 0, 1)
    held = trial._dealt[1][0]  # type: ignore[index]
    sources: list[Any] = [trial._source(Candidate(2.0, threshold), 0, 1, held) for threshold in (0.5, 0.01)]
    assert sources[0].gates.gates[0].threshold < sources[1].gates.gates[0].threshold
    assert not set(sources[0].provenance.seen.pixels().tolist()) & set(held.test.tolist())
    drawn = [source.sample(50, seed=0)['image'] for source in sources]
    assert not torch.equal(*drawn)
    assert sources[0].gates.keep({'image': drawn[0]}).all()
    assert not sources[0].gates.keep({'image': drawn[1]}).all()
    assert SpectraTrial(SCENE, SPLIT, 'noise', FAST, gate=by_range)(Candidate(2.0, 0.5), 0, 1) == strict


def test_what_no_gate_lets_pass_scores_as_real_only() -> None:
    fits: list[float] = []

    def closed(generator: Generator, data: TrainingData, regions: Tensor, threshold: float) -> Any:
        gate = RangeGate(0.01).fit(data, regions)
        fits.append(threshold)
        gate.held_out = gate.held_out - 1e6  # no score is low enough
        return Gated(generator, [gate], tries=2)

    trial = SpectraTrial(SCENE, SPLIT, 'noise', FAST, gate=closed)
    scores = [trial(Candidate(ratio, gate), 1, 4) for ratio, gate in ((1.0, 0.01), (0.0, None), (2.0, 0.01))]
    assert scores[0] == scores[1] == scores[2]
    assert fits == [0.01]  # candidates that differ in ratio alone share a gate
    assert scores[1] == SpectraTrial(SCENE, SPLIT, 'noise', FAST)(Candidate(0.0), 1, 4)
    choice = RatioSearch((1.0, 2.0), (0.01,), trials=3, k=0.0)(trial)
    assert choice.ratio == 0
    assert {standing.mean for standing in choice.standings} == {0.0}
    assert fits == [0.01] * 4  # once more for each fold of the race


def test_patches_are_scored_on_folds() -> None:
    scene = make_scene(64, 64)
    split = PatchSplitter(size=8, stride=4)(scene, 0)
    config = SegmenterConfig(encoder='mit_tiny', channels=16, mapping=False, upsampling=4, steps=6, batch_size=8)
    trial = PatchTrial(scene, split, 'patch_augment', config, {'kind': 'noise'}, folds=2, block=2)
    scores = [trial(Candidate(ratio), 1, 5) for ratio in (0.0, 0.5, 0.5)]
    assert scores[1] == scores[2] != scores[0]
    assert all(0 < score < 1 for score in scores)
    # A generator that has seen the fold does not pass.
    whole = fit_generator('patch_augment', training_data(scene, split), {'kind': 'noise'})
    held = trial._dealt[1][1]  # type: ignore[index]
    real, test = (PatchDataset.from_scene(scene, held, part) for part in ('train', 'test'))
    with pytest.raises(LeakageError, match='evaluation pixels'):
        trial._mixed(real, whole, 0.5, test, 5)


def test_a_network_for_other_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="kind 'spectrum' need a ClassifierConfig, found SegmenterConfig"):
        SpectraTrial(SCENE, SPLIT, 'noise', SegmenterConfig())


def test_pairs_of_dates_are_scored_on_folds() -> None:
    simulated = SimulatedScene(64, 64, classes=3, patch=6, dates=2, change=0.2)
    scene = BitemporalScene.from_simulated(simulated)
    split = PatchSplitter(size=8, stride=4)(scene, 0)
    config = ChangeDetectorConfig('changeformer-v3', 'mit_tiny', 8, steps=4, batch_size=8)
    trial = FoldTrial(scene, split, 'patch_augment', config, {'kind': 'copy_paste'}, folds=2, block=2)
    scores = [trial(Candidate(ratio), 0, 1) for ratio in (0.0, 1.0)]
    assert trial.metric == 'f1'
    assert scores[0] != scores[1]
    assert all(0 <= score <= 1 for score in scores)
