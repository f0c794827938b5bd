import json
from dataclasses import replace

import pytest
import torch
from changes import make_changes
from torch import Tensor

from hsiaug.datasets.contract.batches import ReadAtOnce
from hsiaug.quality import NoveltyGate, label_regions, noise_covariance
from hsiaug.samples import SampleSpec
from hsiaug.scenes import PatchSplitter, SimulatedScene
from hsiaug.systems import TrainingData
from hsiaug.trainers import training_data

BANDS, SIZE = 12, 8
NOISE = torch.linspace(0.004, 0.03, BANDS)  # by band
SPEC = SampleSpec('segmentation', BANDS, ('a', 'b'), size=(SIZE, SIZE))
SPECTRA = SampleSpec('spectrum', BANDS, ('a', 'b'))


def smooth(n: int, seed: int) -> Tensor:
    """(n, C, H, W) patches without noise: two materials mixed along a slope, under light that changes along another."""
    rng = torch.Generator().manual_seed(seed)
    level, slope = torch.rand((n, 2, 1, 1), generator=rng), 0.03 * torch.randn((n, 2, 2), generator=rng)
    step = torch.arange(SIZE) - SIZE / 2
    field = level + slope[:, :, :1, None] * step[:, None] + slope[:, :, 1:, None] * step
    w = torch.linspace(0, 1, BANDS)
    first, second = 0.2 + 0.3 * w, 0.5 - 0.4 * (w - 0.3) ** 2
    share, light = field[:, :1].movedim(1, -1), 0.7 + 0.6 * field[:, 1:].movedim(1, -1)
    return (light * (share * first + (1 - share) * second)).movedim(-1, 1)


def noise(shape: torch.Size, seed: int, times: float = 1.0) -> Tensor:
    level = NOISE.view(-1, *(1,) * (len(shape) - 2))
    return times * level * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def patches(n: int, seed: int) -> TrainingData:
    clean = smooth(n, seed)
    x = clean + noise(clean.shape, seed + 100)
    y = torch.zeros(n, SIZE, SIZE, dtype=torch.int64)
    return TrainingData(SPEC, x, y, x[:0], x[:0], y[:0])


def spectra(n: int, seed: int) -> TrainingData:
    x = smooth(n, seed)[:, :, 4, 4]
    x = x + noise(x.shape, seed + 100)
    y = torch.zeros(n, dtype=torch.int64)
    return TrainingData(SPECTRA, x, y, x[:0], x[:0], y[:0])


def found(gate: NoveltyGate, image: Tensor) -> float:
    return float((~gate.keep({'image': image})).double().mean())


TRAIN = patches(80, 0)


@pytest.fixture(scope='module')
def gate() -> NoveltyGate:
    return NoveltyGate().fit(TRAIN)


def test_noise_is_estimated_from_what_is_smooth() -> None:
    covariance = noise_covariance(TRAIN.x, SPEC)
    torch.testing.assert_close(covariance.diagonal().sqrt().float(), NOISE, rtol=0.15, atol=0)
    scale = covariance.diagonal().sqrt()
    correlation = covariance / (scale[:, None] * scale)
    assert float((correlation - torch.eye(BANDS)).abs().max()) < 0.1
    single = noise_covariance(spectra(2000, 0).x, SPECTRA)
    # What bends in the spectra is taken for noise too, which a nearly noiseless band shows most.
    torch.testing.assert_close(single.diagonal().sqrt().float()[2:], NOISE[2:], rtol=0.3, atol=0)
    assert torch.equal(single, torch.diag(single.diagonal()))


def test_copies_are_found_and_new_patches_pass(gate: NoveltyGate) -> None:
    assert found(gate, patches(400, 1).x) <= 0.08
    assert found(gate, TRAIN.x) == 1
    assert found(gate, TRAIN.x + noise(TRAIN.x.shape, 7)) >= 0.95
    assert found(gate, TRAIN.x.rot90(1, dims=(-2, -1)).flip(-1)) == 1


def test_distances_are_in_units_of_noise(gate: NoveltyGate) -> None:
    order = torch.tensor([5, 0, 79])
    distance, row = gate.nearest({'image': TRAIN.x[order]})
    assert distance.tolist() == [0, 0, 0]
    assert torch.equal(row, order)
    distance, row = gate.nearest({'image': TRAIN.x[order] + noise(TRAIN.x[order].shape, 3)})
    assert distance.tolist() == pytest.approx([1, 1, 1], rel=0.15)
    assert torch.equal(row, order)
    twice, _ = gate.nearest({'image': TRAIN.x[order] + noise(TRAIN.x[order].shape, 3, 2.0)})
    torch.testing.assert_close(twice, 2 * distance, rtol=1e-3, atol=0)
    assert gate.score({'image': TRAIN.x[:1]}).tolist() == pytest.approx([6.9078], abs=1e-3)  # no nearer than 0.001


def test_the_nearest_is_that_of_a_plain_search(gate: NoveltyGate) -> None:
    plain = NoveltyGate(turns=False).fit(TRAIN)
    new = patches(20, 4).x
    distance, row = plain.nearest({'image': new})
    white = torch.einsum('nchw,ck->nkhw', TRAIN.x - plain.mean[:, None, None], plain.axes).flatten(1)
    asked = torch.einsum('nchw,ck->nkhw', new - plain.mean[:, None, None], plain.axes).flatten(1)
    every = (asked[:, None] - white[None]).square().mean(dim=2).sqrt()
    torch.testing.assert_close(distance, every.amin(dim=1), rtol=1e-3, atol=1e-3)
    assert torch.equal(row, every.argmin(dim=1))
    assert (gate.nearest({'image': new})[0] <= distance + 1e-4).all()  # turned ones may be nearer


def test_shifted_copies_need_the_wider_search() -> None:
    wide, narrow = (NoveltyGate(turns=False, shifts=s).fit(TRAIN) for s in (1, 0))
    moved = patches(80, 2).x
    moved[..., 1:, :-1] = TRAIN.x[..., :-1, 1:]  # one down and one to the left, with a new border
    assert found(wide, moved) == 1
    assert found(narrow, moved) < 0.9
    assert found(wide, patches(200, 1).x) <= 0.1


def test_spectra(gate: NoveltyGate) -> None:
    data = spectra(150, 0)
    single = NoveltyGate().fit(data)
    assert found(single, data.x) == 1
    assert found(single, spectra(1000, 1).x) <= 0.09
    # With twelve bands and three traits many real ones are as near as a noisy copy: few can be told from them.
    assert 0.05 < found(single, data.x + noise(data.x.shape, 5)) < 0.5
    assert NoveltyGate(shifts=2).fit(data).threshold == single.threshold
    more = NoveltyGate().fit(replace(data, unlabelled=spectra(2000, 8).x))
    distance = more.nearest({'image': data.x + noise(data.x.shape, 5)})[0]
    assert float(distance.median()) == pytest.approx(1, abs=0.25)


def test_twins_among_real_spectra_cannot_be_told_from_copies() -> None:
    data = spectra(60, 0)
    duplicates = replace(data, x=torch.cat([data.x, data.x]), y=torch.cat([data.y, data.y]))
    assert found(NoveltyGate().fit(duplicates), data.x) == 0


def test_pairs_of_dates() -> None:
    data = make_changes(40, size=8)
    gate = NoveltyGate().fit(data)
    assert found(gate, data.x) == 1
    assert found(gate, make_changes(40, seed=1, size=8).x) < 0.3
    first_only = torch.stack([data.x[:, 0], data.x[:, 1].roll(1, dims=0)], dim=1)
    assert found(gate, first_only) < 0.5


def test_overlapping_windows_do_not_make_each_other_look_like_copies() -> None:
    scene = SimulatedScene(64, 64, wavelengths=torch.linspace(400, 2400, 20).numpy(), seed=2)
    split = PatchSplitter(size=8, stride=2)(scene, 0)
    data = training_data(scene, split)
    apart, close = (NoveltyGate().fit(data, regions) for regions in (label_regions(scene, split), None))
    nearer = close.held_out - apart.held_out
    assert (nearer >= 0).all()
    assert float(nearer.max()) > 0.3
    assert close.threshold > apart.threshold
    assert apart.independent < len(data.x) / 3


class Held(ReadAtOnce):
    def __init__(self, image: Tensor) -> None:
        self.image = image

    def __len__(self) -> int:
        return len(self.image)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {'image': self.image[torch.as_tensor(rows)]}


def test_a_bank_is_told_how_much_of_it_is_memorised(gate: NoveltyGate) -> None:
    new = patches(60, 1).x
    bank = torch.cat([TRAIN.x[:10], TRAIN.x[10:30] + noise(TRAIN.x[10:30].shape, 1), new])
    passing = int(gate.keep({'image': new}).sum())
    report = gate.memorised(Held(bank), batch_size=17)
    assert report['samples'] == 90
    assert report['exact_copies'] == 10
    assert report['memorised'] == 30 + 60 - passing
    assert report['share'] == pytest.approx((90 - passing) / 90)
    assert report['smallest_distance'] == 0
    assert report['median_distance_of_real'] == pytest.approx(float(torch.exp(-gate.held_out).median()), rel=0.05)
    json.dumps(report)


def test_what_is_not_finite_and_what_does_not_fit(gate: NoveltyGate) -> None:
    image = patches(3, 1).x
    image[1, 0, 0, 0] = torch.nan
    assert not gate.keep({'image': image})[1]
    assert gate.score({'image': image[:0]}).shape == (0,)
    with pytest.raises(ValueError, match='shifts must be at least 0'):
        NoveltyGate(shifts=-1)
    with pytest.raises(ValueError, match='nothing is left of'):
        NoveltyGate(shifts=4).fit(TRAIN)
