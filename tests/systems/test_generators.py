import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pairs import make_pairs
from safetensors.torch import load_file, save_file
from torch.nn.functional import one_hot
from toys import toy_training

from hsiaug.datasets import write_bank
from hsiaug.samples import Kind
from hsiaug.scenes import RandomSplit, Scene, Split
from hsiaug.seen import Footprint
from hsiaug.systems import Generator, TrainingData, generator_class, load
from hsiaug.systems.base import REGISTRY
from hsiaug.systems.ensemble import Ensemble
from hsiaug.systems.exemplars import sky_shape
from hsiaug.systems.gaussian import ClassGaussian
from hsiaug.systems.saved import CheckpointError
from hsiaug.trainers import fit_generator, training_data

KINDS = {
    'duplicate': {},
    'noise': {},
    'gain_offset': {},
    'relighting': {},
    'mixup': {'partners': 'across'},
    'gaussian': {'components': 2},
    'variability': {},
    'spectral_gan': {'iterations': 5, 'hidden': 16},
}
CASES: list[tuple[str, dict[str, Any], Kind]] = [
    *((name, settings, 'spectrum') for name, settings in KINDS.items()),
    *((name, {}, 'scene') for name in ('duplicate', 'noise')),
    *(
        ('patch_augment', {'kind': augmentation}, kind)
        for kind in ('scene', 'segmentation', 'change')
        for augmentation in ('duplicate', 'flips', 'crops', 'affine', 'noise', 'cutmix', 'copy_paste')
        if (augmentation, kind) != ('cutmix', 'scene') and (augmentation != 'copy_paste' or kind == 'change')
    ),
    *(
        ('region_paste', {'regions': regions}, kind)
        for kind in ('segmentation', 'change')
        for regions in ('smooth', 'box', 'class', 'components')
    ),
]


def fit(kind: str, data: TrainingData) -> Generator:
    return fit_generator(kind, data, KINDS[kind], seed=2**61 + 1)  # folds are given seeds of 62 bits


@pytest.mark.parametrize(('name', 'settings', 'kind'), CASES)
def test_contract(name: str, settings: dict[str, Any], kind: Kind, data: TrainingData, tmp_path: Path) -> None:
    if kind != 'spectrum':
        data = replace(toy_training(kind), provenance=data.provenance)
    generator = fit_generator(name, data, settings, seed=2**61 + 1)
    labels = torch.tensor([2, 0, 1, 1, 0] * 20).clamp_max(data.spec.num_classes - 1)
    state = torch.get_rng_state()
    batch = generator.sample(100, labels, seed=7)
    assert torch.equal(torch.get_rng_state(), state)  # a seeded draw leaves the global stream alone
    for key, (dtype, shape) in data.spec.layout().items():
        assert (batch[key].dtype, batch[key].shape) == (dtype, (100, *shape))
    assert set(batch) - {'label_prob'} == set(data.spec.layout())
    assert batch['image'].isfinite().all()
    assert torch.equal(batch.get('label', labels), labels)
    assert torch.equal(generator.sample(100, labels, seed=7)['image'], batch['image'])
    assert not torch.equal(generator.sample(100, labels, seed=8)['image'], batch['image'])
    assert 0.3 < float(batch['image'].mean() / data.x.mean()) < 3  # the dataset's own units
    assert ('label_prob' in batch) == generator.soft_labels
    assert generator.provenance is not None
    assert data.provenance is not None
    assert generator.provenance.seen == data.provenance.seen
    assert generator.provenance.training['generator'] == name

    generator.save_pretrained(tmp_path / 'saved')
    assert sorted(p.name for p in (tmp_path / 'saved').iterdir()) == ['README.md', 'config.json', 'model.safetensors']
    loaded = Generator.from_pretrained(tmp_path / 'saved')
    assert type(loaded) is generator_class(name)
    assert loaded.spec == generator.spec
    assert loaded.provenance == generator.provenance
    again = loaded.sample(100, labels, seed=7)
    assert all(torch.equal(again[key], value) for key, value in batch.items())

    low, high = batch['image'].quantile(torch.tensor([0.2, 0.8])).tolist() if kind == 'spectrum' else (0.3, 0.6)
    loaded.spec = replace(loaded.spec, value_range=(low, high))
    assert torch.equal(loaded.sample(100, labels, seed=7)['image'], batch['image'].clamp(low, high))


def test_every_registered_generator_is_tested() -> None:
    load()
    modules = [path.stem for path in Path(__file__).parents[1].glob('*/test_*.py')]
    alone = {name for name in REGISTRY if not any(module.startswith(f'test_{name}') for module in modules)}
    assert alone - set(KINDS) == {'ensemble'}


def test_labels_follow_training_frequencies_and_mistakes_are_named(data: TrainingData) -> None:
    generator = fit('duplicate', data)
    drawn = torch.bincount(generator.sample(3000, seed=0)['label'], minlength=3) / 3000
    assert torch.allclose(drawn, torch.bincount(data.y) / len(data.y), atol=0.04)
    with pytest.raises(ValueError, match=r'labels must be \(3,\) for n=3'):
        generator.sample(3, torch.tensor([0]))
    with pytest.raises(ValueError, match=r'must lie in \[0, 3\)'):
        generator.sample(1, torch.tensor([3]))
    with pytest.raises(ValueError, match="unknown generator 'duplicat'; did you mean 'duplicate'\\? choose from"):
        fit_generator('duplicat', data)
    with pytest.raises(ValueError, match="'mixup' cannot be made with settings"):
        fit_generator('mixup', data, {'alhpa': 1})


def test_duplicates_are_real_spectra_of_their_class(data: TrainingData) -> None:
    batch = fit('duplicate', data).sample(200, seed=0)
    known = {(x.numpy().tobytes(), int(y)) for x, y in zip(data.x, data.y, strict=True)}
    assert {(x.numpy().tobytes(), int(y)) for x, y in zip(batch['image'], batch['label'], strict=True)} <= known


def test_gain_and_offset_is_affine_in_a_real_spectrum(data: TrainingData) -> None:
    batch = fit('gain_offset', data).sample(20, seed=0)
    for image, label in zip(batch['image'].double(), batch['label'], strict=True):
        residuals = []
        for x in data.x[data.y == label].double():
            design = torch.stack([x, torch.ones_like(x)], dim=1)
            residuals.append(float((design @ torch.linalg.lstsq(design, image).solution - image).abs().max()))
        assert min(residuals) < 1e-5


def test_relighting_is_direct_light_plus_a_blue_sky(data: TrainingData) -> None:
    generator = fit('relighting', data)
    wavelengths = np.linspace(400, 2400, 12)
    assert np.allclose(sky_shape(data.spec), (400 / wavelengths) ** 2)
    batch = generator.sample(20, seed=0)
    sky = sky_shape(data.spec)
    for image, label in zip(batch['image'], batch['label'], strict=True):
        residuals = []
        for x in data.x[data.y == label]:
            design = torch.stack([x, x * sky], dim=1)
            residuals.append(float((design @ torch.linalg.lstsq(design, image).solution - image).abs().max()))
        assert min(residuals) < 1e-4


def test_mixup_is_convex_and_its_shares_say_so(data: TrainingData) -> None:
    batch = fit('mixup', data).sample(50, seed=0)
    share, label = batch['label_prob'].max(dim=1)
    assert torch.equal(label, batch['label'])
    assert (share >= 0.5).all()
    pair = (share > 0.55) & (share < 0.95)
    assert pair.any()
    image, prob = batch['image'][pair][0], batch['label_prob'][pair][0]
    first, second = prob.topk(2).indices.tolist()
    weight = float(prob[first])
    candidates = weight * data.x[data.y == first][:, None] + (1 - weight) * data.x[data.y == second][None]
    assert float((candidates - image).abs().amax(dim=2).min()) < 1e-5
    within = fit_generator('mixup', data).sample(50, seed=0)
    assert (within['label_prob'].max(dim=1).values > 1 - 1e-6).all()


@pytest.mark.parametrize('covariance', ['shrunk', 'tied'])
def test_gaussian_has_the_moments_of_its_data(covariance: str, data: TrainingData) -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(12, 12)) * 0.1
    x = torch.tensor(rng.normal(size=(900, 12)) @ factor.T + np.repeat(np.eye(3, 12), 300, axis=0), dtype=torch.float32)
    many = TrainingData(data.spec, x, torch.arange(3).repeat_interleave(300), x[:0], x[:0], torch.arange(0))
    generator = ClassGaussian(data.spec, covariance=covariance)  # type: ignore[arg-type]
    generator.fit(many)
    sample = generator.sample(20_000, torch.full((20_000,), 1), seed=0)['image'].numpy()
    assert np.abs(sample.mean(axis=0) - x[300:600].numpy().mean(axis=0)).max() < 0.02
    expected = factor @ factor.T
    assert np.linalg.norm(np.cov(sample.T) - expected) / np.linalg.norm(expected) < 0.2


@pytest.mark.parametrize('covariance', ['shrunk', 'tied'])
def test_gaussian_leaves_a_constant_band_constant(covariance: str, data: TrainingData) -> None:
    x = data.x.clone()
    x[:, 3], x[:, 5] = 0.3, 0.3 + 1e-6 * x[:, 5]
    generators = [fit_generator('gaussian', replace(data, x=one), {'covariance': covariance}) for one in (x, data.x)]
    made, plain = (generator.sample(500, seed=0)['image'] for generator in generators)
    assert (made[:, 3] == x[0, 3]).all()
    assert 0 < float(made[:, 5].std()) < 2e-6
    assert torch.allclose(made.std(dim=0)[:3], plain.std(dim=0)[:3], rtol=0.2)


def test_mixture_finds_two_modes(data: TrainingData) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 12)) * 0.05
    x[::2, 0] += 3
    many = TrainingData(
        data.spec, torch.tensor(x, dtype=torch.float32), torch.arange(3).repeat_interleave(100), data.x, data.x, data.y
    )
    modes = {}
    for components in (1, 2):
        generator = ClassGaussian(data.spec, components=components)
        generator.fit(many)
        first = generator.sample(1000, torch.zeros(1000, dtype=torch.int64), seed=0)['image'][:, 0]
        modes[components] = float(((first > 0.75) & (first < 2.25)).float().mean())
    assert modes[2] < 0.02 < 0.2 < modes[1]  # one Gaussian fills the gap between the modes


def test_variability_transfers_unlabelled_differences(data: TrainingData) -> None:
    # Unlabelled spectra vary in band 5 only, so samples vary there (brightness is equalised: a little elsewhere too).
    x = torch.ones(6, 12) + torch.eye(3, 12).repeat_interleave(2, 0)
    pool = x[[0, 2, 4]].repeat(40, 1)
    pool[:, 5] += torch.linspace(-0.2, 0.2, 120)
    few = TrainingData(
        data.spec, x, torch.arange(3).repeat_interleave(2), pool, x, torch.arange(3).repeat_interleave(2)
    )
    settings = {'mixing': 0, 'direct': 0, 'diffuse': 0, 'neighbours': 40}
    vary = fit_generator('variability', few, {**settings, 'variability': 1.0})
    image = vary.sample(300, torch.zeros(300, dtype=torch.int64), seed=0)['image']
    spread = image.std(dim=0)
    assert spread[5] > 5 * spread[torch.arange(12) != 5].max()
    still = fit_generator('variability', few, {**settings, 'variability': 0})
    assert still.sample(300, torch.zeros(300, dtype=torch.int64), seed=0)['image'].std(dim=0).max() < 1e-6


def test_spectra_of_the_segment_stand_in_for_labelled_ones(data: TrainingData, tmp_path: Path) -> None:
    # A row of two materials, a labelled pixel at either end; what is nearest to it is another spectrum, in another row.
    x = torch.stack([torch.linspace(1, 2, 12), torch.linspace(2, 1, 12)])
    tilt = torch.linspace(-0.01, 0.01, 12)
    row = torch.stack([x[0] + tilt, x[0] + 2 * tilt, x[1] + 2 * tilt, x[1] + tilt, x[0] * 0.5])
    places = torch.tensor([[0, 0], [0, 5], [0, 1], [0, 2], [0, 3], [0, 4], [7, 7]])
    two = replace(data.spec, classes=('a', 'b'))
    scene = TrainingData(two, x, torch.tensor([0, 1]), row, x[:0], torch.arange(0), positions=places)
    settings = {'variability': 0, 'direct': 0, 'diffuse': 0, 'mixing': 0}
    generator = fit_generator('variability', scene, {**settings, 'segment': 3})
    drawn = generator.sample(200, torch.zeros(200, dtype=torch.int64), seed=0)['image']
    found = {image.numpy().tobytes() for image in drawn}
    assert found == {image.numpy().tobytes() for image in (x[0], row[0], row[1])}
    loaded = Generator.from_pretrained(generator.save_pretrained(tmp_path / 'g'))
    assert torch.equal(loaded.sample(50, seed=1)['image'], generator.sample(50, seed=1)['image'])
    for nowhere in (replace(scene, positions=None), replace(scene, unlabelled=row[:0], positions=places[:2])):
        alone = fit_generator('variability', nowhere, {**settings, 'segment': 3})
        assert torch.equal(alone.sample(9, torch.ones(9).long(), seed=0)['image'], x[1].expand(9, 12))
    plain = fit_generator('variability', scene, settings)
    assert not {'segment_x', 'members'} & set(plain.state_dict())  # saved as before there were segments


def test_training_data_know_where_spectra_lie(scene: Scene, split: Split) -> None:
    found = training_data(scene, split).positions
    assert found is not None
    pixels = np.concatenate([split.train, split.unlabelled])
    assert torch.equal(found @ torch.tensor([scene.shape[1], 1]), torch.from_numpy(pixels))
    tiled = replace(scene, tile_rows=scene.shape[0] // 2)
    below = training_data(tiled, split).positions
    assert below is not None
    assert torch.equal(below[:, 0] - found[:, 0], (found[:, 0] >= scene.shape[0] // 2).long())  # a row apart
    library = Scene.from_spectra('l', scene.cube.reshape(-1, scene.cube.shape[2]), scene.flat_labels())
    assert training_data(library, RandomSplit(fraction=0.3)(library)).positions is None


def test_ensemble_draws_from_all_its_members(data: TrainingData, tmp_path: Path) -> None:
    members = [fit('duplicate', data), fit('noise', data)]
    ensemble = Ensemble.of(members, data)
    batch = ensemble.sample(400, seed=0)
    known = {x.numpy().tobytes() for x in data.x}
    copies = np.mean([x.numpy().tobytes() in known for x in batch['image']])
    assert 0.4 < copies < 0.6
    loaded = Generator.from_pretrained(ensemble.save_pretrained(tmp_path / 'e'))
    assert torch.equal(loaded.sample(400, seed=0)['image'], batch['image'])
    soft = Ensemble.of([fit('mixup', data), fit('noise', data)], data)
    drawn = soft.sample(200, seed=0)
    assert soft.soft_labels
    assert torch.allclose(drawn['label_prob'].sum(dim=1), torch.ones(200))
    hard = (drawn['label_prob'] == one_hot(drawn['label'], 3)).all(dim=1)
    assert 60 < hard.sum() < 160  # those of the other member, and some of mixup's own
    assert len(write_bank(soft, 10, tmp_path / 'bank').batch(range(10))['label_prob']) == 10
    gans = fit_generator('spectral_gan', data, {'iterations': 2, 'hidden': 8, 'members': 2})
    assert isinstance(gans, Ensemble)
    assert gans.sample(4, seed=0)['image'].shape == (4, 12)


def test_an_ensemble_is_of_any_kind_and_has_seen_what_its_members_have(data: TrainingData) -> None:
    pairs = make_pairs(12)
    members = [fit_generator(kind, pairs) for kind in ('region_paste', 'patch_augment')]
    batch = Ensemble.of(members, pairs).sample(9, seed=0)
    assert batch['mask'].shape == (9, *pairs.spec.target_shape)
    elsewhere = fit('noise', data)
    assert elsewhere.provenance is not None
    seen = Footprint.of(elsewhere.provenance.seen.scene, elsewhere.provenance.seen.size, np.arange(5))  # type: ignore[union-attr]
    elsewhere.provenance = replace(elsewhere.provenance, seen=seen)
    both = Ensemble.of([fit('noise', data), elsewhere], data).provenance
    assert both is not None
    assert both.seen is not None
    assert set(range(5)) <= set(both.seen.pixels().tolist())


class TestCheckpoints:
    def test_truncated_foreign_and_misfit(self, data: TrainingData, tmp_path: Path) -> None:
        folder = fit('spectral_gan', data).save_pretrained(tmp_path / 'g')
        weights, config = (folder / 'model.safetensors').read_bytes(), (folder / 'config.json').read_text()

        def refused(message: str) -> None:
            with pytest.raises(CheckpointError, match=message):
                Generator.from_pretrained(folder)

        (folder / 'model.safetensors').write_bytes(weights[: len(weights) // 2])
        refused('truncated or not a safetensors file')
        (folder / 'model.safetensors').write_bytes(b'PK\x03\x04 a pickle in a zip')
        refused('truncated or not a safetensors file')
        (folder / 'model.safetensors').write_bytes(weights)
        state = load_file(folder / 'model.safetensors')
        save_file({k: v for k, v in state.items() if 'linears.0' not in k}, folder / 'model.safetensors')
        refused('does not fit')
        (folder / 'model.safetensors').write_bytes(weights)
        (folder / 'config.json').write_text('{"architectures": ["Bert"]}')
        refused('not a generator config')
        (folder / 'config.json').write_text(config[:40])
        refused('not a generator config')
        (folder / 'config.json').unlink()
        refused('holds no config.json')
        with pytest.raises(CheckpointError, match='no folder'):
            Generator.from_pretrained(tmp_path / 'nowhere' / 'at' / 'all')

    def test_another_type_is_refused(self, data: TrainingData, tmp_path: Path) -> None:
        folder = fit('noise', data).save_pretrained(tmp_path / 'g')
        with pytest.raises(CheckpointError, match="holds a 'noise'"):
            ClassGaussian.from_pretrained(folder)

    def test_failed_save_leaves_nothing_behind(
        self, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        generator = fit('noise', data)

        def full(*_: object) -> None:
            raise OSError('No space left on device')

        monkeypatch.setattr('hsiaug.systems.saved.save_file', full)
        with pytest.raises(OSError, match='No space'):
            generator.save_pretrained(tmp_path / 'g')
        assert list(tmp_path.iterdir()) == []

    def test_saving_over_something_else_is_refused(self, data: TrainingData, tmp_path: Path) -> None:
        (tmp_path / 'thesis.tex').write_text('years of work')
        with pytest.raises(FileExistsError, match='choose another folder'):
            fit('noise', data).save_pretrained(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']

    def test_card_and_config_say_what_it_is(self, data: TrainingData, tmp_path: Path) -> None:
        folder = fit('noise', data).save_pretrained(tmp_path / 'g')
        card = (folder / 'README.md').read_text()
        assert data.provenance is not None
        assert str(data.provenance.split) in card
        assert json.loads((folder / 'config.json').read_text())['type'] == 'noise'
