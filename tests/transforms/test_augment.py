from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toys import Toy, aligned
from zooms import NearestZoom, class_of, interpolating, plateaus, unaltered

from hsiaug.ratio import Linear
from hsiaug.samples import SpecMismatchError
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms import GeneratorAugmentation, SyntheticMix


def batches(count: int, size: int = 7) -> list[dict[str, Tensor]]:
    toy = Toy('segmentation', count * size)
    return [{key: value[i * size : (i + 1) * size] for key, value in toy.data.items()} for i in range(count)]


def run(augment: GeneratorAugmentation, given: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
    return [augment(batch) for batch in given]


@pytest.mark.parametrize(('given', 'share'), [({'ratio': 0.5}, 1 / 3), ({'p': 0.3}, 0.3), ({'p': 1}, 1.0)])
def test_counts_are_exact_and_masks_follow(given: dict[str, Any], share: float) -> None:
    before, zoom = batches(10), NearestZoom()
    augment = GeneratorAugmentation(zoom, **given)
    places = []
    for number, batch in enumerate(before):
        state = {key: value.clone() for key, value in batch.items()}
        out = augment(batch | {'synthetic': torch.zeros(7, dtype=torch.bool), 'place': ['a'] * 7})
        kept = unaltered(batch['image'], out['image'])
        assert augment.altered == zoom.given == int((number + 1) * 7 * share + 1e-9)
        assert torch.equal(out['mask'][kept], batch['mask'][kept])
        assert aligned(out)
        assert not aligned({'image': out['image'][~kept], 'mask': batch['mask'][~kept]}) or kept.all()
        assert not out['synthetic'].any()
        assert out['place'] == ['a'] * 7
        assert all(torch.equal(batch[key], state[key]) for key in batch)
        places.append(tuple(kept.tolist()))
    assert len(set(places)) > 3 or share == 1


def test_super_resolved_samples_in_a_batch() -> None:
    data = plateaus(20)
    out = GeneratorAugmentation(interpolating(data, factor=2), p=0.5)({'image': data.x, 'mask': data.y})
    kept = unaltered(data.x, out['image'])
    assert int(kept.sum()) == 10
    image, mask = out['image'][~kept], out['mask'][~kept]
    double = GeneratorAugmentation(interpolating(data, factor=2), p=0.5)({'image': data.x.double(), 'mask': data.y})
    assert torch.equal(double['image'], out['image'].double())
    assert (class_of(image) == mask).float().mean() > 0.85  # all but the borders, which interpolation blurs
    assert (class_of(image) == data.y[~kept]).float().mean() < 0.7


def test_jitter_leaves_masks() -> None:
    data = plateaus(8)
    out = GeneratorAugmentation(interpolating(data, factor=2, augmentation='jitter'), p=1)(
        {'image': data.x, 'mask': data.y}
    )
    assert not unaltered(data.x, out['image']).any()
    assert torch.equal(out['mask'], data.y)


def test_draws_depend_on_seed_epoch_and_step_and_leave_the_global_stream() -> None:
    given, state = batches(3), torch.get_rng_state()

    def images(seed: int, epoch: int) -> list[Tensor]:
        augment = GeneratorAugmentation(NearestZoom(), p=0.5, seed=seed)
        augment.set_epoch(epoch)
        return [out['image'] for out in run(augment, [given[0]] * 3)]

    first = images(0, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, images(0, 0), strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], images(1, 0)[0])
    assert not torch.equal(first[0], images(0, 1)[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_resumed_training_goes_on_where_it_was() -> None:
    given = batches(6)
    whole = GeneratorAugmentation(NearestZoom(), ratio=Linear(0.2, 2, 3))
    whole.set_epoch(2)
    through = run(whole, given)
    first = GeneratorAugmentation(NearestZoom(), ratio=Linear(0.2, 2, 3))
    first.set_epoch(2)
    run(first, given[:3])
    second = GeneratorAugmentation(NearestZoom(), ratio=Linear(0.2, 2, 3))
    second.load_state_dict(first.state_dict())
    for a, b in zip(through[3:], run(second, given[3:]), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert second.altered == whole.altered


def test_a_schedule_is_followed() -> None:
    augment, shares = GeneratorAugmentation(NearestZoom(), ratio=Linear(0, 3, 2)), []
    for epoch in range(3):
        augment.set_epoch(epoch)
        before = augment.altered
        run(augment, batches(20))
        shares.append((augment.altered - before) / 140)
    assert shares == pytest.approx([0, 0.6, 0.75])


@pytest.mark.parametrize('quiet', ['ratio', 'p', 'eval'])
def test_nothing_to_alter_changes_no_bit(quiet: str) -> None:
    augment = GeneratorAugmentation(NearestZoom(), **{quiet: 0.0} if quiet != 'eval' else {'p': 1.0})
    augment.train(quiet != 'eval')
    for batch, out in zip(batches(2), run(augment, batches(2)), strict=True):
        assert out.keys() == batch.keys()
        assert all(torch.equal(out[key], batch[key]) for key in batch)


def test_labels_and_synthetic_samples_pass_through() -> None:
    toy = Toy('scene', 9)
    out = GeneratorAugmentation(NearestZoom('scene'), p=1)(toy.data)
    assert torch.equal(out['label'], toy.data['label'])
    assert not unaltered(toy.data['image'], out['image']).any()
    mixed = SyntheticMix(Toy('segmentation', 40, seed=1), ratio=1.0)(batches(1, 12)[0])
    both = GeneratorAugmentation(NearestZoom(), p=1)(mixed)
    assert aligned(both)
    assert torch.equal(both['synthetic'], mixed['synthetic'])


def test_the_generator_stays_out_of_parameters_and_state() -> None:
    augment = GeneratorAugmentation(NearestZoom(), p=0.5)
    assert not list(augment.parameters())
    assert set(augment.state_dict()) == {'_extra_state'}
    assert repr(augment) == 'GeneratorAugmentation(p=0.5, generator=<NearestZoom: alters segmentation samples>)'


def test_mistakes(data: TrainingData) -> None:
    with pytest.raises(TypeError, match=r"Noise has no augment.*SyntheticMix; 'msrresgan' is one"):
        GeneratorAugmentation(fit_generator('noise', data), p=0.5)  # type: ignore[arg-type]
    assert GeneratorAugmentation(NearestZoom(), p=torch.tensor(0.5).numpy()[()]).probability.value == 0.5
    for given in ({}, {'ratio': 1, 'p': 0.5}, {'p': 1.5}, {'ratio': -1}):
        with pytest.raises(ValueError, match=r'ratio|fraction'):
            GeneratorAugmentation(NearestZoom(), **given)  # type: ignore[arg-type]
    (batch,) = batches(1)
    augment = GeneratorAugmentation(NearestZoom(), p=1)
    with pytest.raises(SpecMismatchError, match=r"'segmentation' with 'mask', the batch has \['image'\]"):
        augment({'image': batch['image']})
    with pytest.raises(SpecMismatchError, match=r'masks \(7, 8, 8\) are needed.*found \(7, 1, 8, 8\)'):
        augment({'image': batch['image'], 'mask': batch['mask'][:, None]})
    with pytest.raises(SpecMismatchError, match=r'real masks hold \[3\], expected 0 to 2'):
        augment({**batch, 'mask': batch['mask'] + 1})
    with pytest.raises(ValueError, match=r"images \('n', 5, 12, 12\) are needed, found \(7, 5, 8, 8\)"):
        GeneratorAugmentation(interpolating(plateaus(), factor=2), p=1)(batch)
