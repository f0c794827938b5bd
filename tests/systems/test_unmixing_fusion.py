import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import image as pictures
from mixtures import BANDS, SIZE, UNIT, endmembers, maps, mixtures
from torch import Tensor

from hsiaug.functional.spectral import spectral_angle
from hsiaug.systems import Generator, TrainingData
from hsiaug.systems.unmixing_fusion import train as module
from hsiaug.systems.unmixing_fusion.model import UnmixingFusion
from hsiaug.systems.unmixing_fusion.train import UnmixingFusionConfig
from hsiaug.systems.unmixing_fusion.unmixing.train import UnmixingConfig
from hsiaug.trainers import fit_generator

DATA = mixtures(24)
TINY: dict[str, Any] = {
    'unmixing': {
        'endmembers': 3, 'widths': (8, 8, 12, 8, 8), 'steps': 120, 'learning_rate': 2e-2,
    },
    'abundances': {'kind': 'diffusion', 'iterations': 4, 'network': {'channels': [8, 16], 'sampling_steps': 3}},
    'mask_steps': 200,
}  # fmt: skip

BRIEF: dict[str, Any] = {'unmixing': {**TINY['unmixing'], 'steps': 6}, 'mask_steps': 3}


def fit(data: TrainingData = DATA, seed: int = 0, folder: Path | None = None, **changes: Any) -> UnmixingFusion:
    generator = fit_generator('unmixing_fusion', data, {**TINY, **changes}, seed, folder=folder)
    assert isinstance(generator, UnmixingFusion)
    return generator


def bootstrapped(generator: UnmixingFusion, abundances: Tensor) -> UnmixingFusion:
    """With training abundances for generated ones, all that follows on them can be checked by its content."""

    def sample(n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        return abundances[torch.randint(len(abundances), (n,), generator=rng)]

    generator.abundances.sample = sample  # type: ignore[method-assign]
    return generator


@pytest.fixture(scope='module')
def trained() -> UnmixingFusion:
    return fit()


@pytest.fixture
def copies(trained: UnmixingFusion, tmp_path: Path) -> UnmixingFusion:
    """One that draws the training images' abundances."""
    trained.save_pretrained(tmp_path / 'copies')
    again = Generator.from_pretrained(tmp_path / 'copies')
    assert isinstance(again, UnmixingFusion)
    return bootstrapped(again, trained.unmixing.abundances(DATA.x))


def nearest_material(image: Tensor) -> Tensor:
    """(n, H, W) material of least angle of (n, C, H, W)."""
    return spectral_angle(image[:, None], endmembers()[None, :, :, None, None], dim=2).argmin(dim=1)


def test_images_are_of_the_scenes_materials_and_masks_follow_them(copies: UnmixingFusion) -> None:
    batch = copies.sample(40, seed=0)
    assert batch['image'].shape == (40, BANDS, SIZE, SIZE)
    assert batch['mask'].dtype == torch.int64
    assert 'label' not in batch
    agree = (nearest_material(batch['image']) == batch['mask']).float().mean()
    assert agree > 0.8
    assert (nearest_material(batch['image']) == batch['mask'].flip(-1)).float().mean() < agree - 0.2
    assert abs(float(batch['image'].mean() / DATA.x.mean()) - 1) < 0.1  # counts


def test_masks_were_learnt_and_their_accuracy_is_on_record(trained: UnmixingFusion) -> None:
    found = trained.unmixed_and_remixed(DATA.val_x)
    accuracy = float((found['mask'] == DATA.val_y).float().mean())
    assert accuracy > 0.85
    assert trained.provenance is not None
    assert trained.provenance.training['mask_accuracy'] == pytest.approx(accuracy)
    assert float((found['image'] - DATA.val_x).square().mean().sqrt()) < 0.06 * UNIT


def test_dominant_materials_as_masks() -> None:
    generator = fit(masks='dominant')
    assert generator.classifier is None
    assert sorted(generator.class_of.tolist()) == [0, 1, 2]
    accuracy = (generator.unmixed_and_remixed(DATA.val_x)['mask'] == DATA.val_y).float().mean()
    assert accuracy > 0.8
    pure = torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4)
    assert torch.equal(generator.class_map(pure)[:, 0, 0], generator.class_of)


def test_noise_has_the_covariance_of_the_residual() -> None:
    faithful = fit(noise_from='residual')
    rest = (DATA.x - faithful.unmixed_and_remixed(DATA.x)['image']).movedim(1, -1).flatten(0, 2).double()
    wanted = rest.T @ rest / len(rest)
    assert torch.allclose((faithful.residual @ faithful.residual.T).double().diagonal(), wanted.diagonal(), rtol=0.1)
    same = maps(1, 3).expand(30, -1, -1, -1)
    noise = faithful.compose(same, torch.Generator().manual_seed(0)) - faithful.unmixing.mix(same)
    drawn = noise.movedim(1, -1).flatten(0, 2).double()
    cosine = (drawn.T @ drawn / len(drawn) * wanted).sum() / ((drawn.T @ drawn / len(drawn)).norm() * wanted.norm())
    assert cosine > 0.97
    assert abs(float(drawn.square().mean() / rest.square().mean()) - 1) < 0.1


def test_noise_of_differences_leaves_out_what_is_smooth(copies: UnmixingFusion) -> None:
    assert copies.noise_from == 'differences'  # the default
    rough = 0.02 * UNIT * torch.randn(DATA.x.shape, generator=torch.Generator().manual_seed(0))
    smooth = torch.linspace(-1, 1, SIZE).expand(SIZE, SIZE) * 0.2 * UNIT  # of no endmember, up to 0.2 at an edge
    mixed = copies.unmixing.mix(copies.unmixing.abundances(DATA.x))
    copies.unmixing.abundances = lambda inputs: maps(len(inputs), 0)  # type: ignore[method-assign]
    copies.unmixing.mix = lambda abundances: mixed  # type: ignore[method-assign]
    copies.observe(replace(DATA, x=mixed + rough + smooth))
    spread = (copies.residual @ copies.residual.T).diagonal().sqrt() / UNIT
    assert torch.allclose(spread, torch.full_like(spread, 0.02), rtol=0.25)
    copies.noise_from = 'residual'
    copies.observe(replace(DATA, x=mixed + rough + smooth))
    assert float((copies.residual @ copies.residual.T).diagonal().sqrt().min()) > 0.08 * UNIT


def test_noise_and_variability_can_be_set(copies: UnmixingFusion) -> None:
    copies.noise = 0.0
    one, two = (copies.compose(maps(6, 3), torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(one, two)
    copies.variability = 0.1
    rng = torch.Generator().manual_seed(0)
    gains = copies.compose(torch.eye(3)[:, :, None, None].repeat(200, 1, 2, 2), rng) / one.new_tensor(UNIT)
    pure = copies.unmixing.endmembers.detach().repeat(200, 1) / UNIT
    gain = gains[:, :, 0, 0].norm(dim=1) / pure.norm(dim=1)
    assert torch.allclose(gains, gains[:, :, :1, :1].expand_as(gains))  # one gain for a whole sample
    assert abs(float(gain.std()) - 0.1) < 0.02
    assert abs(float(gain.mean()) - 1) < 0.02


def test_values_stay_in_range(copies: UnmixingFusion) -> None:
    copies.spec = replace(copies.spec, value_range=(100.0, 300.0))
    image = copies.sample(4, seed=0)['image']
    assert 100 <= float(image.min()) <= float(image.max()) <= 300


def test_an_ignored_class_is_never_generated(copies: UnmixingFusion) -> None:
    assert (copies.sample(6, seed=0)['mask'] == 1).any()
    copies.spec = replace(copies.spec, ignore_index=1)
    assert not (copies.sample(6, seed=0)['mask'] == 1).any()


def test_maps_count_for_a_class_by_their_share() -> None:
    abundances, masks = maps(2, 0), torch.zeros(2, SIZE, SIZE, dtype=torch.int64)
    masks[0, : SIZE // 4] = 1
    masks[1, 0], masks[1, 1:] = 2, 255
    learnt = module._labelled(abundances, masks, replace(DATA.spec, ignore_index=255))
    assert learnt.labels.tolist() == [0, 1, 2]
    assert learnt.weights.tolist() == pytest.approx([0.375, 0.125, 0.5])
    assert torch.equal(learnt.abundances, abundances[[0, 0, 1]])


def test_a_class_to_be_ignored_may_be_in_no_mask() -> None:
    generator = fit(replace(DATA, spec=replace(DATA.spec, ignore_index=2)), **BRIEF)
    assert set(generator.sample(4, torch.tensor([0, 1, 0, 1]), seed=0)['mask'].unique().tolist()) <= {0, 1}


def asked(data: TrainingData, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Any]:
    """What the abundances' generator is given to learn from."""
    seen: dict[str, Any] = {}
    train = module.train_abundances

    def spy(abundances: Tensor, labels: Tensor, *rest: Any, weights: Tensor) -> Any:
        seen.update(abundances=abundances, labels=labels, weights=weights)
        return train(abundances, labels, *rest, weights=weights)

    monkeypatch.setattr(module, 'train_abundances', spy)
    seen['generator'] = fit(data, **{**BRIEF, **changes})
    return seen


def camera(n: int, seed: int) -> Tensor:
    """(n, 3, 2s, 2s) uint8 pictures of other mixtures, of twice as fine pixels."""
    image = mixtures(n, seed).x[:, [11, 6, 2]]
    image = (255 * image / image.amax(dim=(0, 2, 3), keepdim=True)).round().to(torch.uint8)
    return image.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_rgb_images_join_with_their_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = camera(5, 9)
    seen = asked(
        DATA,
        monkeypatch,
        masks='dominant',
        unmixing=TINY['unmixing'],
        rgb=rgb,
        rgb_factor=2,
        rgb_weight=0.3,
        rgb_stride=4,
    )
    generator, weights = seen['generator'], seen['weights']
    own = len(module._labelled(maps(24, 0), DATA.y, DATA.spec).labels)
    assert float(weights[own:].sum()) == pytest.approx(0.3)
    assert float(weights.sum()) == pytest.approx(1)
    assert seen['labels'].min() >= 0  # what they hold is read off their class maps
    held = maps(5, 9).argmax(dim=1)
    held = torch.stack([(held == k).flatten(1).any(dim=1) for k in range(3)])
    assert held.sum() * 0.6 <= len(weights) - own <= 15
    found = generator.class_map(seen['abundances'][own:])
    assert (found == seen['labels'][own:, None, None]).flatten(1).any(dim=1).all()
    record = generator.provenance.training['rgb']
    assert (record['images'], record['patches'], record['labelled']) == (5, 5, 0)
    assert json.loads(json.dumps(generator.provenance.to_dict()))['training']['rgb']['sha256'] == record['sha256']


def test_a_scenes_label_is_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    data = mixtures(24, kind='scene')
    labels = torch.tensor([2, -1])
    seen = asked(data, monkeypatch, rgb=camera(2, 9).float() / 255, rgb_labels=labels, rgb_stride=16, rgb_weight=0.25)
    assert torch.equal(seen['labels'][:24], data.y)
    assert seen['labels'][24:].tolist() == [2] * 4 + [-1] * 4  # four patches of each picture
    assert float(seen['weights'][24:].sum()) == pytest.approx(0.25)
    batch = seen['generator'].sample(4, torch.tensor([0, 1, 2, 1]), seed=0)
    assert batch['label'].tolist() == [0, 1, 2, 1]
    assert 'mask' not in batch
    assert batch['image'].shape == (4, BANDS, SIZE, SIZE)


def test_without_classes_each_map_counts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (DATA, mixtures(24, kind='scene')):
        for weight, share in ((None, 8 / 32), (0.5, 0.5)):
            seen = asked(data, monkeypatch, conditional=False, rgb=camera(2, 9), rgb_stride=16, rgb_weight=weight)
            assert len(seen['labels']) == 32
            assert torch.allclose(seen['weights'][:24], torch.full((24,), (1 - share) / 24))
            assert torch.allclose(seen['weights'][24:], torch.full((8,), share / 8))
            assert seen['generator'].abundances.num_labels == 0


@pytest.mark.slow
def test_rgb_images_without_a_class_are_drawn_in_their_share_if_no_class_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RGB images without a class, of one material each, beside scenes of all."""

    def pure(network: Any, rgb: Tensor, matching: str) -> Tensor:
        return torch.eye(3)[:1, :, None, None].expand(len(rgb), 3, SIZE, SIZE)

    monkeypatch.setattr(module, 'abundances_from_rgb', pure)
    network = {'kind': 'diffusion', 'iterations': 600, 'network': {'channels': [8, 16]}}
    changes = {**BRIEF, 'abundances': network, 'rgb': torch.zeros(24, 3, SIZE, SIZE), 'rgb_weight': None}
    share = {}
    for conditional in (True, False):
        generator = fit(mixtures(24, kind='scene'), **changes, conditional=conditional)
        drawn = generator.abundances.sample(200, torch.arange(200) % 3, torch.Generator().manual_seed(0))
        share[conditional] = float((drawn[:, 0].mean(dim=(1, 2)) > 0.9).float().mean())
    assert share[True] < 0.02
    assert abs(share[False] - 0.5) < 0.12


def test_without_classes_labels_mean_nothing(tmp_path: Path) -> None:
    for data in (DATA, mixtures(24, kind='scene')):
        generator = fit(data, **BRIEF, conditional=False)
        one, two = (generator.sample(4, torch.full((4,), k), seed=0) for k in (0, 2))
        assert torch.equal(one['image'], two['image'])
    generator.save_pretrained(tmp_path / 'g')
    again = Generator.from_pretrained(tmp_path / 'g')
    assert torch.equal(again.sample(4, seed=0)['image'], generator.sample(4, seed=0)['image'])


def test_folders_of_rgb_images(tmp_path: Path) -> None:
    spec = mixtures(24, kind='scene').spec
    for i, name in enumerate(('soil', 'sea', 'soil')):
        (tmp_path / name).mkdir(exist_ok=True)
        pictures.imsave(tmp_path / name / f'{i}.png', camera(1, i)[0].movedim(0, -1).numpy())
    _, labels = module._read(tmp_path / 'soil', spec)
    assert labels.tolist() == [1, 1]
    np.save(tmp_path / 'sea' / '9.npy', np.zeros((32, 32, 5)))
    with pytest.raises(ValueError, match=r'32, 32, 5'):
        fit(mixtures(24, kind='scene'), rgb=tmp_path)


def test_config_takes_mappings_or_objects() -> None:
    config = UnmixingFusionConfig(unmixing={'endmembers': 7}, abundances={'kind': 'vae'})
    assert config.unmixing == UnmixingConfig.small(endmembers=7)
    assert UnmixingFusionConfig(unmixing=UnmixingConfig()).unmixing == UnmixingConfig()


def test_rgb_files_of_any_depth_are_read_from_0_to_1(tmp_path: Path) -> None:
    for name, most in (('float', 1), ('bytes', 255), ('words', 65535)):
        image = np.linspace(0, most, 3 * 32 * 32).reshape(32, 32, 3)
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / 'one.npy', image.astype({1: np.float32, 255: np.uint8, 65535: np.uint16}[most]))
        images, labels = module._read(tmp_path / name, DATA.spec)
        assert images.shape == (1, 3, 32, 32)
        assert images[0, :, 0, 0].tolist() == pytest.approx([0, 0, 0], abs=0.01)
        assert images[0, 0, 16, 16].item() == pytest.approx(0.52, abs=0.01)
        assert labels.tolist() == [-1]
    with pytest.raises(ValueError, match=r'rgb must be a folder of images .*found .*one\.npy'):
        fit(rgb=tmp_path / 'float' / 'one.npy')


def test_patches_that_do_not_fit_are_named_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError('trained')

    monkeypatch.setattr(module, 'train_unmixing', never)
    with pytest.raises(ValueError, match=r"no training image holds \['leaves'\]"):
        fit(replace(DATA, y=DATA.y.clamp_max(1)))
    ignored = replace(DATA, spec=replace(DATA.spec, ignore_index=255), y=torch.full_like(DATA.y, 255))
    with pytest.raises(ValueError, match='no mask of the training images holds a class that counts'):
        fit(ignored, conditional=False)
    with pytest.raises(ValueError, match="set inputs='rgb' in unmixing"):
        fit(unmixing={**TINY['unmixing'], 'inputs': 'all'}, rgb=torch.zeros(1, 3, 32, 32))
    for height, width, message in ((16, 12, 'square'), (6, 6, 'maps must be 8, 10, 12 or 14 pixels wide')):
        x, y = (part[..., :height, :width] for part in (DATA.x, DATA.y))
        cut = replace(DATA, spec=replace(DATA.spec, size=(height, width)), x=x, y=y)
        with pytest.raises(ValueError, match=message):
            fit(cut)


def test_mistakes() -> None:
    for settings, message in (
        ({'unmixing': {'ends': 3}}, "unknown setting in unmixing or abundances.*'ends'"),
        ({'masks': 'best'}, "unknown masks 'best'"),
        ({'rgb_weight': 1.0}, 'rgb_weight must be between 0 and 1.*rgb=None'),
        ({'noise': -1}, 'noise must be at least 0'),
        ({'noise_from': 'pixels'}, "unknown noise_from 'pixels'"),
        ({'rgb': torch.zeros(2, 3, 8, 8)}, 'hold no patch of 16 x 16'),
        ({'rgb': torch.full((1, 3, 32, 32), 200.0)}, 'must lie from 0 to 1, found 200'),
        (
            {'rgb': torch.zeros(2, 3, 32, 32), 'rgb_labels': torch.tensor([0, 3])},
            r'rgb_labels must be \(2,\) in \[0, 3\)',
        ),
    ):
        with pytest.raises(ValueError, match=message):
            fit(**settings)
    with pytest.raises(ValueError, match=r'rgb_labels must be .* found \(2,\) of torch.float32: \[0.0, 1.5\]'):
        fit(rgb=torch.zeros(2, 3, 32, 32), rgb_labels=torch.tensor([0, 1.5]))
    with pytest.raises(ValueError, match='rgb_labels are those of images given as a tensor, found rgb=None'):
        fit(rgb_labels=torch.tensor([0, 1]))
    with pytest.raises(TypeError, match='uint8 tensor'):
        fit(rgb=torch.zeros(1, 3, 32, 32, dtype=torch.int32))
    with pytest.raises(ValueError, match='wavelengths of the 24 bands are unknown'):
        fit(replace(DATA, spec=replace(DATA.spec, wavelengths=None)))
    with pytest.raises(ValueError, match=r"no training image holds \['leaves'\]"):
        fit(replace(DATA, y=DATA.y.clamp_max(1)), **BRIEF)
    with pytest.raises(ValueError, match="found 'spectrum'"):
        UnmixingFusion(replace(DATA.spec, kind='spectrum', size=None))
    with pytest.raises(ValueError, match='square'):
        UnmixingFusion(replace(DATA.spec, size=(16, 32)))
    with pytest.raises(ValueError, match='not trained yet'):
        UnmixingFusion(DATA.spec).sample(1, torch.tensor([0]))
