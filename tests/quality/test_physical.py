import json
from dataclasses import replace

import pytest
import torch
from changes import make_changes
from pairs import make_pairs
from torch import Tensor

from hsiaug.quality import Gate, Gates, RangeGate, SmoothnessGate, SubspaceGate, fit_gates
from hsiaug.samples import SampleSpec
from hsiaug.systems import TrainingData

BANDS = 20
SPEC = SampleSpec('spectrum', BANDS, ('a', 'b'), unit='reflectance')


def spectra(n: int, seed: int) -> TrainingData:
    """Two smooth materials under varying light, with sensor noise of 0.01."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=rng)
    w = torch.linspace(0, 1, BANDS)
    shapes = torch.stack([0.3 + 0.2 * w, 0.5 - 0.3 * (w - 0.5) ** 2])
    light = 1 + 0.1 * torch.randn((n, 1), generator=rng)
    x = light * shapes[y] + 0.01 * torch.randn((n, BANDS), generator=rng)
    return TrainingData(SPEC, x, y, x[:0], x[:0], y[:0])


@pytest.fixture(scope='module')
def gates() -> Gates:
    return Gates([RangeGate(), SmoothnessGate(), SubspaceGate()]).fit(spectra(300, 0))


def rejected(gates: Gates, image: Tensor) -> dict[str, float]:
    return {name: float(no.double().mean()) for name, no in gates.judge({'image': image}).rejected.items()}


def test_new_real_spectra_pass(gates: Gates) -> None:
    for name, rate in rejected(gates, spectra(2000, 1).x).items():
        assert rate == pytest.approx(0.05, abs=0.035), name


def test_each_finds_what_it_is_for(gates: Gates) -> None:
    new = spectra(500, 2).x
    assert rejected(gates, 1.8 * new)['range'] > 0.95
    rough = rejected(gates, new + 0.03 * torch.randn(new.shape, generator=torch.Generator().manual_seed(0)))
    assert min(rough['smoothness'], rough['subspace']) > 0.95
    bump = 0.06 * torch.exp(-0.5 * ((torch.arange(BANDS) - 10.0) / 2) ** 2)
    shaped = rejected(gates, new + bump)  # smooth and within the range, but of no real material
    assert shaped['subspace'] > 0.95
    assert shaped['smoothness'] < 0.5


def test_range_counts_spreads_beyond_the_real_values() -> None:
    gate = RangeGate()
    gate._learn(torch.tensor([[0.0, 10.0], [2.0, 30.0]]))  # spreads 1 and 10
    values = gate._values(torch.tensor([[1.0, 20.0], [3.5, 20.0], [1.0, -20.0], [-1.0, 35.0]]))
    assert values.tolist() == [-1.0, 1.5, 3.0, 1.0]


def test_smoothness_is_of_first_differences() -> None:
    gate = SmoothnessGate()
    gate._learn(torch.tensor([[0.0, 1.0, 0.0], [0.0, 3.0, 0.0]]))  # steps 2 +- 1 and -2 +- 1
    values = gate._values(torch.tensor([[5.0, 8.0, 6.0], [5.0, 5.0, 5.0]]))  # (3, -2), (0, 0)
    assert values.exp().tolist() == pytest.approx([0.5, 4.0])


def test_one_bad_pixel_in_ten_spoils_a_patch_and_one_in_a_hundred_does_not() -> None:
    data = make_pairs(60, size=10)
    gate = RangeGate().fit(data)
    new = make_pairs(5, seed=1, size=10).x
    assert gate.keep({'image': new}).all()
    few, many = new.clone(), new.clone()
    few[:, :, 0, 0] = 5000
    many[:, :, 0, :] = 5000
    assert gate.keep({'image': few}).all()
    assert not gate.keep({'image': many}).any()


def test_pairs_of_dates_at_either_date() -> None:
    gate = SubspaceGate().fit(make_changes(60, size=8))
    new = make_changes(20, seed=1, size=8).x
    assert gate.keep({'image': new}).double().mean() > 0.8
    for date in (0, 1):
        spoilt = new.clone()
        spoilt[:, date, 3] += 40
        assert not gate.keep({'image': spoilt}).any()


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_what_is_not_finite_never_passes(gates: Gates, value: float) -> None:
    image = spectra(8, 3).x
    image[2, 5] = value
    decision = gates.judge({'image': image})
    assert decision.rejected['range'][2]
    assert not gates.keep({'image': image})[2]
    assert gates.keep({'image': image}).sum() >= 5


def test_false_alarm_can_be_changed_after_fitting(gates: Gates) -> None:
    gate = RangeGate(0.5).fit(spectra(300, 0))
    new = {'image': spectra(2000, 1).x}
    assert gate.keep(new).double().mean() == pytest.approx(0.5, abs=0.06)
    gate.false_alarm = 0.01
    assert gate.keep(new).double().mean() > 0.96


def test_a_threshold_comes_from_what_the_gate_has_not_learnt_from() -> None:
    data = spectra(40, 0)  # few: they lie nearer to their own subspace than new ones do
    gate = SubspaceGate().fit(data)
    own, new = (float(gate.score({'image': x}).mean()) for x in (data.x, spectra(500, 1).x))
    assert own < new - 0.2
    assert float(gate.held_out.mean()) > new - 0.1


def test_validation_samples_count_and_the_same_seed_gives_the_same() -> None:
    data = spectra(100, 0)
    val = spectra(50, 9)
    with_val = replace(data, val_x=val.x, val_y=val.y)
    one, two = (SmoothnessGate().fit(with_val, seed=4) for _ in range(2))
    assert (len(one.held_out), one.independent) == (150, 150)
    assert torch.equal(one.held_out, two.held_out)
    assert one.threshold == two.threshold
    json.dumps(one.settings())


def test_what_cannot_be_judged_is_said() -> None:
    data = spectra(30, 0)
    with pytest.raises(ValueError, match=r'\d+ of 30 training samples are finite'):
        RangeGate().fit(replace(data, x=data.x.where(data.x < 0.5, torch.nan)))
    one = TrainingData(replace(SPEC, bands=1), data.x[:, :1], data.y, data.x[:0, :1], data.x[:0, :1], data.y[:0])
    gate: Gate
    for gate in (SmoothnessGate(), SubspaceGate()):
        with pytest.raises(ValueError, match='needs 2 bands, found 1'):
            gate.fit(one)
    windows = make_pairs(6, size=8)
    linked = torch.zeros_like(windows.y)
    linked[:, 0, 0] = 1  # every window holds both regions: none is independent of another
    with pytest.raises(ValueError, match='1 real sample can be judged'):
        RangeGate().fit(windows, linked)
    with pytest.raises(ValueError, match=r'variance must be in \(0, 1\)'):
        SubspaceGate(variance=1.0)


def test_what_is_no_batch_of_these_samples_is_said(gates: Gates) -> None:
    every, _ = fit_gates(spectra(60, 0))
    assert every is not None
    for some in (gates, every):
        assert some.keep({'image': torch.zeros(0, BANDS), 'label': torch.zeros(0, dtype=torch.int64)}).shape == (0,)
    for wrong in (torch.zeros(3, BANDS + 1), None):
        with pytest.raises(ValueError, match=r'images .* as they were fitted to expected, found'):
            gates.judge({'image': wrong})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"Gates: gates are expected, found \['str'\]"):
        Gates(['novelty'])  # type: ignore[list-item]


def test_a_false_alarm_that_is_none_is_no_gate_that_cannot_be_fitted() -> None:
    for value in (0, 1.5, '0.05'):
        with pytest.raises(ValueError, match='fit_gates: false_alarm must be'):
            fit_gates(spectra(20, 0), false_alarm=value)  # type: ignore[arg-type]
