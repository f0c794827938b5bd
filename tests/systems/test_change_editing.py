from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pairs import class_spectra, make_pairs, nearest_class
from scipy.ndimage import label as connected
from torch import Tensor

from hsiaug.metrics import between_halves, change_differences
from hsiaug.samples import Provenance
from hsiaug.scenes import BitemporalScene, PatchSplitter, SimulatedScene
from hsiaug.systems import Generator, TrainingData
from hsiaug.systems.change_editing.edits import edit_masks
from hsiaug.systems.change_editing.model import ChangeEditing
from hsiaug.systems.change_editing.train import ChangeEditingConfig, single_dates, train_change_editing, with_composites
from hsiaug.systems.two_stream_diffusion.train import TwoStreamConfig
from hsiaug.trainers import fit_generator, training_data

SMALL = TwoStreamConfig(
    mask_latents=2, vae_channels=8, vae_iterations=150, diffusion_iterations=150, vae_batch_size=4, batch_size=8,
    vae_lr=4e-3, sad_weight=1.0,
)  # fmt: skip
TINY = replace(SMALL, vae_channels=4, unet_channels=(8, 16), sampling_steps=3, vae_iterations=2, diffusion_iterations=2)
PAIRS = make_pairs(30, ignored=0.1)
CLUSTERS = 5
FACTOR = 3.5
"""Times the distance between two halves of the real data that synthetic data may lie away from them."""


@pytest.fixture(scope='module')
def scene() -> BitemporalScene:
    bands = np.arange(450, 2300, 230.0)
    simulated = SimulatedScene(112, 112, wavelengths=bands, dates=2, change=0.1, classes=5, patch=4.0, seed=3)
    return BitemporalScene.from_simulated(simulated)


@pytest.fixture(scope='module')
def data(scene: BitemporalScene) -> TrainingData:
    return training_data(scene, PatchSplitter(size=16, stride=8)(scene, seed=0))


@pytest.fixture(scope='module')
def trained(data: TrainingData) -> ChangeEditing:
    return train_change_editing(data, ChangeEditingConfig(clusters=CLUSTERS, painter=SMALL))


@pytest.fixture(scope='module')
def tiny() -> ChangeEditing:
    return train_change_editing(PAIRS, ChangeEditingConfig(painter=TINY))


def shares(batch: dict[str, Tensor]) -> Tensor:
    """(n,) share of changed pixels among those that count."""
    mask = batch['mask'].flatten(1)
    return (mask == 1).sum(dim=1) / (mask != 255).sum(dim=1)


# --- edits of masks -------------------------------------------------------------------------------------------------


def test_edits_are_of_the_size_asked_for_and_of_transitions_that_happen() -> None:
    rng = torch.Generator().manual_seed(0)
    mask = make_pairs(40, ignored=0.1).y
    counts = torch.randint(0, 120, (40,), generator=rng)
    happens = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    edited = edit_masks(mask, counts, happens, rng)
    changed = edited != mask
    assert torch.equal(changed.sum(dim=(1, 2)), counts)
    assert not changed[mask == 255].any()
    pairs = {*zip(mask[changed].tolist(), edited[changed].tolist(), strict=True)}
    assert pairs == {(0, 1), (1, 2), (2, 0), (2, 1)}
    regions = [connected(one.numpy(), np.ones((3, 3)))[1] for one in changed]
    assert np.mean(regions) < 8  # of up to 119 pixels
    assert torch.equal(edit_masks(mask, counts * 0, happens, rng), mask)


def test_edits_stop_where_nothing_more_can_change() -> None:
    mask = torch.tensor([[[0, 0, 1], [255, 2, 2]], [[1, 1, 1], [2, 2, 2]]])
    happens = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    edited = edit_masks(mask, torch.tensor([4, 4]), happens, torch.Generator().manual_seed(0))
    assert edited.tolist() == [[[1, 1, 1], [255, 2, 2]], [[1, 1, 1], [2, 2, 2]]]


# --- form -----------------------------------------------------------------------------------------------------------


def test_samples_have_their_own_classes_and_shares_that_survive_a_save(tiny: ChangeEditing, tmp_path: Path) -> None:
    assert set(tiny.sample(7, seed=3)['mask'].unique().tolist()) == {0, 1, 255}
    assert tiny.spec.classes == ('unchanged', 'changed')
    assert (tiny.spec.kind, tiny.spec.unit, tiny.spec.ignore_index) == ('change', 'counts', 255)
    loaded = Generator.from_pretrained(tiny.save_pretrained(tmp_path / 'g'))
    assert isinstance(loaded, ChangeEditing)
    assert loaded.class_prior.tolist() == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize('setting', [0.0, 0.15, (0.05, 0.4)])
def test_the_share_of_changed_pixels_is_the_one_asked_for(tiny: ChangeEditing, setting: Any) -> None:
    try:
        tiny.set_change_share(setting)
        found = shares(tiny.sample(60, seed=0))
    finally:
        tiny.set_change_share(None)
    low, high = setting if isinstance(setting, tuple) else (setting, setting)
    pixel = 1 / 200  # of some 230 that count
    assert found.min() >= low - pixel
    assert found.max() <= high + pixel
    assert float(found.mean()) == pytest.approx((low + high) / 2, abs=pixel + (high - low) / 10)
    assert float(found.std()) == pytest.approx((high - low) / 12**0.5, abs=pixel + (high - low) / 20)


def test_labels_and_shares_ask_for_change(tiny: ChangeEditing) -> None:
    few, many = (shares(tiny.sample(90, torch.full((90,), k), seed=0)).mean() for k in (0, 1))
    # shares s are even in [0, 0.2]; a label 1 asks with chances as s, a label 0 as 1 − s: means by integration
    assert float(many) == pytest.approx(2 / 3 * 0.2, abs=0.015)
    assert float(few) == pytest.approx((0.1 - 0.2**2 / 3) / 0.9, abs=0.015)
    given = torch.tensor([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]])
    assert torch.allclose(shares(tiny.sample_shares(3, given, seed=1)), given[:, 1], atol=1 / 200)


def test_first_dates_are_training_images_and_without_drift_only_changes_differ() -> None:
    config = ChangeEditingConfig(painter=TINY, drift=0.0, change_share=0.1)
    batch = train_change_editing(PAIRS, config).sample(12, seed=0)
    first, second, changed = batch['image'][:, 0], batch['image'][:, 1], batch['mask'] == 1
    known = {image.numpy().tobytes() for image in PAIRS.x}
    assert all(image.numpy().tobytes() in known for image in first)
    near = torch.nn.functional.max_pool2d(changed.float(), 5, stride=1, padding=2) > 0
    difference = (second - first).abs() / first.abs().mean()
    assert float(difference.amax(dim=1)[~near[:, 0]].max()) < 1e-3
    assert float(difference.mean(dim=1)[changed[:, 0]].mean()) > 0.05


def test_synthetic_first_dates_need_no_training_image(tmp_path: Path) -> None:
    generator = train_change_editing(PAIRS, ChangeEditingConfig('synthetic', 0.1, painter=TINY))
    assert len(generator.image) == len(generator.mask) == 0
    loaded = Generator.from_pretrained(generator.save_pretrained(tmp_path / 'g'))
    batch, again = generator.sample(5, seed=1), loaded.sample(5, seed=1)
    assert torch.equal(batch['image'], again['image'])
    assert not torch.equal(batch['image'][:, 0], batch['image'][:, 1])


# --- what is learnt -------------------------------------------------------------------------------------------------


def test_dates_differ_as_real_ones_do(trained: ChangeEditing, data: TrainingData) -> None:
    real = data.x, data.y
    batch = trained.sample(60, seed=0)
    assert float(shares(batch).mean()) == pytest.approx(float(trained.observed_shares.mean()), abs=0.03)
    halves, found = between_halves(real, 255), change_differences(real, (batch['image'], batch['mask']), 255)
    sterile = change_differences(real, (data.x[:, [0, 0]], data.y), 255)
    rng = torch.Generator().manual_seed(0)
    static = torch.stack([data.x[:, 0], data.x[torch.randperm(len(data.x), generator=rng), 1]], dim=1)
    noisy = change_differences(real, (static, data.y), 255)
    for name in ('unchanged', 'changed', 'unchanged_texture', 'changed_texture'):
        bound = FACTOR * getattr(halves, name)
        assert getattr(found, name) < bound, name
        assert getattr(sterile, name) > bound, name
    # pairs of dates of two places differ too much where nothing changed
    assert noisy.unchanged_texture > FACTOR * halves.unchanged_texture


def test_from_single_dates_the_drift_comes_from_unlabelled_pairs(trained: ChangeEditing, data: TrainingData) -> None:
    real, config = (data.x, data.y), ChangeEditingConfig(change_share=(0.0, 0.2), painter=SMALL)
    pairs, sides = single_dates(data, CLUSTERS), {}
    for name, unlabelled in (('pairs', data.x), ('none', data.x[:0])):
        generator = train_change_editing(replace(pairs, unlabelled=unlabelled), config, painter=trained.painter)
        assert generator.spec == data.spec
        batch = generator.sample(60, seed=0)
        sides[name] = change_differences(real, (batch['image'], batch['mask']), 255)
    halves = between_halves(real, 255)
    assert sides['pairs'].unchanged < FACTOR * halves.unchanged
    assert sides['pairs'].changed < FACTOR * halves.changed
    assert sides['pairs'].unchanged < 0.5 * sides['none'].unchanged  # which knows no season
    assert sides['none'].changed < 0.6 * change_differences(real, (data.x[:, [0, 0]], data.y), 255).changed


def test_clusters_take_the_place_of_land_cover(data: TrainingData) -> None:
    ignored = data.y.clone()
    ignored[:, :, :3] = 255
    pairs = single_dates(replace(data, y=ignored), 4)
    assert torch.equal(pairs.x, data.x[:, 0])
    assert pairs.spec.kind == 'segmentation'
    assert pairs.spec.classes == ('cluster 1', 'cluster 2', 'cluster 3', 'cluster 4')
    assert set(pairs.y.unique().tolist()) == {0, 1, 2, 3, 255}
    assert torch.equal(pairs.y == 255, ignored[:, 0] == 255)
    shapes = torch.nn.functional.normalize(data.x[:, 0], dim=1).movedim(1, -1)
    spread = torch.stack([shapes[pairs.y == k].var(dim=0).sum() for k in range(4)])
    assert float(spread.mean()) < 0.7 * float(shapes.flatten(0, 2).var(dim=0).sum())
    brighter = replace(data, x=data.x * torch.rand((len(data.x), 1, 1, 1, 1), generator=torch.Generator()).add(0.5))
    assert torch.equal(single_dates(replace(brighter, y=ignored), 4).y, pairs.y)  # the light of a patch plays no part
    assert torch.equal(single_dates(replace(data, y=ignored), 4).y, pairs.y)
    assert single_dates(PAIRS, 4) is PAIRS


def test_pairs_of_one_band_are_clustered_by_brightness(data: TrainingData) -> None:
    one = replace(data, spec=replace(data.spec, bands=1, wavelengths=None), x=data.x[:, :, :1])
    generator = train_change_editing(one, ChangeEditingConfig(painter=TINY, clusters=3))
    assert len(generator.centres.unique()) == 3
    assert generator.classify(data.x[:, 0, :1]).unique().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match='show 1 different spectra, too few for 3 clusters'):
        train_change_editing(replace(one, x=torch.ones_like(one.x)), ChangeEditingConfig(painter=TINY, clusters=3))


def test_composites_keep_mask_and_image_together() -> None:
    data = make_pairs(20)
    found = with_composites(data, 2)
    assert len(found.x) == len(found.y) == 60
    assert torch.equal(found.x[:20], data.x)
    assert float((nearest_class(found.x) == found.y).float().mean()) > 0.97
    pasted = (found.x[20:] != data.x.repeat(2, 1, 1, 1)).all(dim=1).float().mean(dim=(1, 2))
    assert 0.05 < float(pasted.quantile(0.1)) < float(pasted.quantile(0.9)) < 0.55
    assert max(len(mask.unique()) for mask in found.y[20:]) == 3  # straight borders of two classes before
    assert with_composites(data, 0).x.shape == data.x.shape


def test_labelled_changes_say_which_class_becomes_which() -> None:
    pairs = make_pairs(40, seed=2)
    change = torch.zeros_like(pairs.y)
    change[:, 4:12, 4:12] = 1
    change[pairs.y != 0] = 0  # class a only
    later = make_pairs(40, seed=2).x
    c = class_spectra()[2][:, None, None]
    later = torch.where(change[:, None] == 1, c, later) + 20
    spec = replace(pairs.spec, kind='change', classes=('unchanged', 'changed'))
    x = torch.stack([pairs.x, later], dim=1)
    data = replace(pairs, spec=spec, x=x, y=change[:, None], unlabelled=x[:0], val_x=x[:0], val_y=change[:0, None])
    generator = train_change_editing(data, ChangeEditingConfig(clusters=3, painter=TINY))
    named = nearest_class(generator.centres[:, :, None, None]).flatten()  # which cluster is which class
    order = named.argsort()
    moves = generator.transitions[order][:, order]
    assert sorted(named.tolist()) == [0, 1, 2]
    assert float(moves[0, 2]) > 0.8 * float(moves.sum())
    assert float(moves.diagonal().abs().sum()) == 0
    single = train_change_editing(pairs, ChangeEditingConfig(painter=TINY)).transitions
    assert torch.allclose(single, single.T)  # of neighbours


# --- data and provenance --------------------------------------------------------------------------------------------


def test_bad_input_is_named(tiny: ChangeEditing) -> None:
    for settings, message in (
        ({'painter': {'single_stream': True}}, 'the painter needs two streams'),
        ({'painter': {'depth': 3}}, "painter cannot be {'depth': 3}"),
        ({'clusters': 1}, 'clusters must be at least 2'),
        ({'drift': 2}, r'drift must be in \[0, 1\]'),
        ({'size': 8}, "'change_editing' cannot be made with settings"),
        ({'first_date': 'third', 'painter': TINY}, "unknown first_date 'third'"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_generator('change_editing', PAIRS, settings)
    for share in (1.2, (0.4, 0.1), (-0.1, 0.2), (0.1, 0.2, 0.3)):
        with pytest.raises(ValueError, match='change_share must be'):
            tiny.set_change_share(share)
        with pytest.raises(ValueError, match='Config: change_share must be'):  # before a painter is trained
            ChangeEditingConfig(change_share=share)
    unlabelled = torch.rand(3, 2, 8, 16, 16).where(torch.arange(3).view(3, 1, 1, 1, 1) == 0, torch.nan)
    with pytest.raises(ValueError, match='2 of 3 unlabelled images hold NaN'):
        train_change_editing(replace(PAIRS, unlabelled=unlabelled))
    with pytest.raises(ValueError, match="of kind 'segmentation' or 'change', found 'scene'"):
        train_change_editing(replace(PAIRS, spec=replace(PAIRS.spec, kind='scene')))
    with pytest.raises(ValueError, match=r'pairs of dates must be \(M, 2, 8, 16, 16\)'):
        train_change_editing(replace(PAIRS, unlabelled=torch.zeros(3, 2, 8, 8, 8)))
    with pytest.raises(ValueError, match='images of 4 x 16 pixels are too small to tell texture from light'):
        train_change_editing(replace(PAIRS, x=PAIRS.x[:, :, :4], y=PAIRS.y[:, :4]))
    untrained = ChangeEditing(tiny.spec, PAIRS.spec.to_dict(), {'vae_channels': 4})
    with pytest.raises(ValueError, match='not trained yet'):
        untrained.sample(1)
    one_class = replace(PAIRS, y=torch.where(torch.arange(30)[:, None, None] < 10, 0, PAIRS.y * 0 + 1))
    two = replace(one_class, spec=replace(PAIRS.spec, classes=('a', 'b')))
    with pytest.raises(ValueError, match='no two classes lie side by side'):
        train_change_editing(two, ChangeEditingConfig(painter=TINY))


def test_a_painter_of_other_data_is_refused(tiny: ChangeEditing) -> None:
    other = replace(PAIRS, spec=replace(PAIRS.spec, classes=('x', 'y', 'z')))
    with pytest.raises(ValueError, match='trained on only'):
        train_change_editing(other, painter=tiny.painter)
    elsewhere = replace(PAIRS, provenance=Provenance('0', 0, {}, split='another'))
    with pytest.raises(ValueError, match='trained on split None, the data are of split another'):
        train_change_editing(elsewhere, painter=tiny.painter)
