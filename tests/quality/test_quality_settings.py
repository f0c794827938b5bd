"""Settings that are no numbers, or out of range, are named: none is silently computed with."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsiaug.quality import Candidate, RatioSearch, Recorded, SpectraTrial
from hsiaug.quality.adaptive_ratio import AdaptiveRatio
from hsiaug.quality.agreement import AgreementGate
from hsiaug.quality.coverage import Coverage
from hsiaug.quality.folds import fold_splits
from hsiaug.quality.gated import Gated, all_gates
from hsiaug.quality.novelty import NoveltyGate
from hsiaug.quality.physical import RangeGate, SubspaceGate
from hsiaug.scenes import RandomSplit, Scene
from hsiaug.settings import Range, check_value
from hsiaug.trainers import ClassifierConfig

NAN, INF = float('nan'), float('inf')


def library(labels: int = 0, dtype: str = 'f4', **fields: Any) -> Scene:
    rng = np.random.default_rng(0)
    label = np.roll(np.repeat([1, 2], 60), labels)
    return Scene.from_spectra('s', rng.integers(1, 999, (120, 5)).astype(dtype), label, **fields)


SPLIT = RandomSplit(fraction=0.5)(library(), 0)
trial = partial(SpectraTrial, library(), SPLIT, 'noise', ClassifierConfig())

WRONG: list[Any] = [
    *(partial(RatioSearch, k=k) for k in (NAN, INF, -1, '1', None, True)),
    *(partial(RatioSearch, folds=folds) for folds in (NAN, 0, 1, 2.5, '3')),
    *(partial(RatioSearch, trials=trials) for trials in (NAN, 0, '6', 6.5)),
    *(partial(RatioSearch, first=first) for first in (NAN, 0, '2', 7)),
    *(partial(RatioSearch, seed=seed) for seed in (NAN, '0')),
    *(partial(RatioSearch, ratios) for ratios in ((), (0,), (NAN,), (1.0, NAN), (1.0, -1.0), ('1',))),
    *(partial(RatioSearch, thresholds=thresholds) for thresholds in ((NAN,), ('0.1',), (0.1, 0.1))),
    *(partial(Candidate, 1.0, threshold) for threshold in (NAN, '0.1')),
    *(partial(kind, alarm) for kind in (RangeGate, NoveltyGate, AgreementGate) for alarm in (NAN, 0, 1, '0.1', None)),
    *(partial(SubspaceGate, variance=variance) for variance in (NAN, 0, 1, '0.9')),
    *(partial(AgreementGate, margin=margin) for margin in (NAN, 0, INF, '1')),
    *(partial(NoveltyGate, shifts=shifts) for shifts in (NAN, -1, '1', 0.5)),
    *(partial(Coverage, k) for k in (NAN, 0, '5', 2.5)),
    *(partial(Gated, None, [], tries) for tries in (NAN, 0, '5', 2.5)),
    *(partial(AdaptiveRatio, every=every) for every in (NAN, 0, '1', 1.5)),
    *(partial(AdaptiveRatio, patience=patience) for patience in (NAN, 0, '1', 1.5)),
    *(partial(AdaptiveRatio, rate=rate) for rate in (NAN, 0, INF, '1')),
    *(partial(AdaptiveRatio, explore=explore) for explore in (NAN, 0, '1')),
    *(partial(AdaptiveRatio, smoothing=smoothing) for smoothing in (NAN, 0, '1')),
    *(partial(AdaptiveRatio, tolerance=tolerance) for tolerance in (NAN, -1, INF, '1')),
    *(partial(AdaptiveRatio, reference=reference) for reference in ([0.5, NAN], ['0.5'])),
    *(partial(trial, share=share) for share in (NAN, 0, 1.5, '1')),
    *(partial(trial, folds=folds) for folds in (NAN, 1, '3')),
    *(partial(trial, block=block) for block in (NAN, 0, '8')),
    *(partial(fold_splits, library(), SPLIT, folds) for folds in (NAN, 1, '3', 2.5)),
    *(partial(fold_splits, library(), SPLIT, 3, block=block) for block in (NAN, 0, '8', 1.5)),
]  # fmt: skip


@pytest.mark.parametrize('make', WRONG, ids=lambda p: f'{p.func.__name__}-{p.args[-1:]}-{p.keywords}'[:80])
def test_settings_that_are_no_numbers_or_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r'expected|must'):
        make()


def test_a_gate_is_never_set_to_what_it_could_not_be_made_with() -> None:
    gate = RangeGate(0.1)
    with pytest.raises(ValueError, match=r'false_alarm must be a finite number in \(0, 1\), found nan'):
        gate.false_alarm = NAN
    assert gate.false_alarm == 0.1


def test_another_k_of_the_same_race_is_checked_too() -> None:
    choice = RatioSearch((1.0,))(lambda candidate, fold, seed: candidate.ratio)
    with pytest.raises(ValueError, match='k must be a finite number of at least 0, found nan'):
        choice.decided(NAN)


def test_numbers_of_numpy_are_numbers() -> None:
    assert check_value('who', 'x', np.int64(3), int) == 3
    assert check_value('who', 'x', np.float32(0.5), float, Range(0, 1, open_low=True)) == 0.5
    assert RatioSearch(folds=np.int64(3), k=np.float64(1.0)).folds == 3  # type: ignore[arg-type]


# --- scores in a file -------------------------------------------------------------------------------------------------


@dataclass
class Maker:
    """Makes gates of some strictness."""

    strictness: float

    def __call__(self, *_: Any) -> Any:
        raise AssertionError


def test_scores_are_told_apart_by_all_that_decides_on_them() -> None:
    """The labels of a scene and its scale leave the fingerprint of its split alone."""
    base = trial()
    for same in (trial(), SpectraTrial(library(dtype='>f8'), SPLIT, 'noise', ClassifierConfig())):
        assert same.identity == base.identity
    others = [
        *(SpectraTrial(scene, SPLIT, 'noise', ClassifierConfig()) for scene in (library(1), library(scale=0.1))),
        *(trial(gate=gate) for gate in (all_gates, Maker(0.1), Maker(0.2))),
        *(trial(gate=partial(all_gates, **given)) for given in ({}, {'threshold': 0.1}, {'threshold': 0.2})),
        trial(settings={'level': 0.2}), trial(labels='uniform'), trial(share=0.5), trial(folds=4), trial(block=4),
    ]  # fmt: skip
    identities = [other.identity for other in others]
    assert len({*identities, base.identity}) == len(others) + 1


def test_scores_need_an_identity(tmp_path: Path) -> None:
    """Two functions would share what stands in the file."""
    with pytest.raises(ValueError, match='function has no identity; give it one'):
        Recorded(lambda candidate, fold, seed: 1.0, tmp_path / 'scores.jsonl')


class Known:
    identity = 'known'

    def __init__(self, score: Any) -> None:
        self.score = score

    def __call__(self, *_: Any) -> Any:
        return self.score


def test_scores_are_finite_and_whole(tmp_path: Path) -> None:
    file = tmp_path / 'scores.jsonl'
    for score in (NAN, INF, None, '1'):
        with pytest.raises(ValueError, match='on fold 0: a finite score expected'):
            Recorded(Known(score), file)(Candidate(1.0), 0, 0)
    assert not file.exists()
    assert Recorded(Known(0.5), file)(Candidate(1.0), 0, 0) == 0.5
    assert Recorded(Known(0.7), file)(Candidate(1.0), 0, 0) == 0.5  # recorded
    for row in (
        '{"trial": "known"}',
        '{"trial": "known", "ratio": 1, "threshold": null, "fold": 0, "seed": 0, "score": "x"}',
    ):
        file.write_text(row + '\n')
        with pytest.raises(ValueError, match=r'scores\.jsonl'):
            Recorded(Known(0.5), file)
