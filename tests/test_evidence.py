"""The default ratio of a source rests on what was measured, and says so."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import hsiaug.evidence as evidence
from hsiaug.evidence import Evidence, known_evidence
from hsiaug.quality import recommended_ratio
from hsiaug.samples import Kind
from hsiaug.systems import REGISTRY, TrainingData
from hsiaug.trainers import fit_generator

sys.path.insert(0, str(Path(__file__).parents[1] / 'benchmarks'))
from collect_evidence import FILE, RESULTS, ROOT, collect

HELPS = Evidence(
    'variability', 'spectrum', {}, 10.0, 2.0, 0.5, 'sqrt', 'oa', 3.0, (1.0, 5.0), 16,
    {'near': (4.0, 2.0, 6.0), 'far': (-2.0, -3.0, -1.0)}, 'somewhere.json',
)  # fmt: skip


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[Evidence]:
    """Evidence that a test makes up."""
    entries: list[Evidence] = []
    monkeypatch.setattr(evidence, 'known_evidence', lambda: tuple(entries))
    return entries


def test_the_file_holds_what_the_results_say() -> None:
    assert json.loads(FILE.read_text()) == {'evidence': json.loads(json.dumps(collect(RESULTS)))}
    for entry in known_evidence():
        assert (ROOT / entry.origin).is_file()
        assert entry.interval[0] <= entry.gain <= entry.interval[1]
        assert entry.seeds >= 10


def test_every_source_in_the_file_is_a_generator() -> None:
    from hsiaug.systems import load

    load()
    assert {entry.generator for entry in known_evidence()} <= set(REGISTRY)


def test_the_surest_gain_of_the_nearest_budget_is_taken(known: list[Evidence]) -> None:
    known += [
        HELPS,
        replace(HELPS, ratio=3.0, gain=3.5, interval=(2.0, 5.0), synthetic_first=0.0),
        replace(HELPS, labels_per_class=100.0, ratio=1.0),
        replace(HELPS, labels_per_class=None, ratio=0.5),
    ]
    for labels, ratio in ((5, 3.0), (10, 3.0), (30, 3.0), (33, 1.0), (100, 1.0), (1000, 0.5), (None, 0.5)):
        assert recommended_ratio('variability', labels).ratio == ratio
    assert recommended_ratio('variability', 10).synthetic_first == 0
    known[1] = replace(known[1], gain=2.0, interval=(1.0, 3.0))
    known.append(replace(HELPS, ratio=9.0, gain=9.0, interval=(0.1, 18.0)))
    first = recommended_ratio('variability', 10)
    assert (first.ratio, first.synthetic_first, first.labels) == (2.0, 0.5, 'sqrt')
    assert recommended_ratio('variability', 10, mixed=True).ratio == 3.0
    assert 'significant loss on far' in first.note
    assert 'somewhere.json' in first.note


def test_what_another_network_gained_stands_beside_it(known: list[Evidence]) -> None:
    plain, better = (
        replace(HELPS, network='plain'),
        replace(HELPS, network='a better one', gain=-0.4, interval=(-1, 0.3)),
    )
    known += [plain, better]
    found = recommended_ratio('variability', 10)
    assert found.ratio == 0, 'what costs a better network is mixed in'
    assert '16 seeds, a better one' in found.note
    assert found.note.endswith('; +3.0 [+1.0, +5.0] with plain')
    known[1] = better = replace(better, gain=0.1, interval=(-0.3, 0.5))
    assert recommended_ratio('variability', 10).ratio == HELPS.ratio, 'a gain that costs no network is thrown away'
    known += [replace(plain, ratio=5.0, gain=1.5), replace(better, ratio=5.0, gain=0.9, interval=(0.3, 1.5))]
    found = recommended_ratio('variability', 10)
    assert found.ratio == 5.0
    assert found.evidence is known[3]


def test_a_recommended_way_is_a_schedule(known: list[Evidence]) -> None:
    known.append(HELPS)
    found = recommended_ratio('variability', 10)
    assert found.mode == 'replace'
    assert [found.schedule(4)(epoch) for epoch in range(5)] == [math.inf, math.inf, 0, 0, 0]
    assert [found.schedule(2)(epoch) for epoch in range(2)] == [math.inf, 0]
    with pytest.raises(ValueError, match='epochs'):
        found.schedule(1)
    known[0] = replace(HELPS, synthetic_first=0.0)
    found = recommended_ratio('variability', 10)
    assert (found.mode, found.schedule(1)(0), found.schedule(9)(8)) == ('append', 2.0, 2.0)
    known[0] = replace(HELPS, interval=(-1.0, 7.0))
    assert recommended_ratio('variability', 10).schedule(9)(0) == 0


def test_without_a_gain_nothing_is_mixed_in_and_the_note_says_why(known: list[Evidence]) -> None:
    known.append(replace(HELPS, gain=0.4, interval=(-0.1, 0.9)))
    found = recommended_ratio('variability', 10)
    assert (found.ratio, found.synthetic_first) == (0, 0)
    assert found.note.startswith('no gain was found, so nothing is mixed in: variability at ratio 2')


def test_of_what_was_never_measured_a_choice_is_asked_for(known: list[Evidence]) -> None:
    known.append(HELPS)
    with pytest.raises(
        ValueError, match=r"nothing was measured for 'mixup', only for \['variability \(spectrum\)'\]; give"
    ):
        recommended_ratio('mixup', 10)
    with pytest.raises(ValueError, match="'variability' of kind 'change'"):
        recommended_ratio('variability', 10, 'change')
    with pytest.raises(ValueError, match='nothing was measured'):
        recommended_ratio('variability', 10, mixed=True)
    with pytest.raises(ValueError, match='does not say which generator it is from'):
        recommended_ratio(object(), 10)
    for wrong in (0, -3, math.nan):
        with pytest.raises(ValueError, match='labels_per_class'):
            recommended_ratio('variability', wrong)


def test_generators_and_what_was_drawn_from_them_are_known_by_their_provenance(
    known: list[Evidence], data: TrainingData
) -> None:
    known += [replace(HELPS, settings={'mixing': 0.0}), replace(HELPS, generator='duplicate', ratio=1.0)]
    generator = fit_generator('variability', data)
    bank = SimpleNamespace(spec=generator.spec, provenance=generator.provenance)
    for source in (generator, bank):
        found = recommended_ratio(source, 10)
        assert found.ratio == 2
        assert found.note.endswith("; measured with {'mixing': 0.0}")
    assert 'measured with' not in recommended_ratio(fit_generator('variability', data, {'mixing': 0.0}), 10).note
    assert recommended_ratio(fit_generator('duplicate', data), 10).ratio == 1


def test_learned_generators_are_not_mixed_in_by_default() -> None:
    for name, kind in (
        ('spectral_gan', 'spectrum'),
        ('gaussian', 'spectrum'),
        ('two_stream_diffusion', 'segmentation'),
    ):
        assert recommended_ratio(name, 30, kind).ratio == 0  # type: ignore[arg-type]


@pytest.mark.parametrize('kind', ['segmentation', 'change'])
def test_images_have_an_answer_that_says_how_many_were_labelled(kind: Kind) -> None:
    found = recommended_ratio('region_paste', kind=kind)
    assert f'with {found.evidence.images} labelled images (' in found.note
    assert found.ratio == (found.evidence.ratio if found.evidence.interval[0] > 0 else 0)
