"""``hsiaug.fit``: from any datasets to a generator that mixes into them."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from changes import make_changes
from pairs import make_pairs
from real_pairs import BarkBeetles, oscd, write_geotiffs, write_oscd_cities
from torch.utils.data import Subset

import hsiaug
from hsiaug import Generator, MixedDataset, SpectraDataset, fit_generator
from hsiaug.datasets import ChangeDataset, PairFolder, PatchDataset, adapt, require_unseen_samples
from hsiaug.engine.data import Read
from hsiaug.samples import LeakageError, Provenance
from hsiaug.scenes import LabelledPatchSplitter, RandomSplit, Scene, Split
from hsiaug.seen import KEPT, Places, SeenSamples
from hsiaug.systems import TrainingData
from hsiaug.systems.data import data_of
from hsiaug.systems.fit import learning_from_unlabelled, training_data
from hsiaug.systems.training import trainer_of
from hsiaug.systems.two_stream_diffusion import TwoStreamConfig, train_two_stream

TINY: dict[str, Any] = {
    'image_latents': 2, 'mask_latents': 2, 'vae_channels': 4, 'unet_channels': (8, 16), 'sampling_steps': 2,
    'vae_iterations': 6, 'diffusion_iterations': 6, 'vae_batch_size': 4,
}  # fmt: skip


def equal(one: Generator, other: Generator, tolerance: float = 0) -> None:
    state = other.state_dict()
    for key, value in one.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=tolerance, atol=tolerance, msg=key)


def pairs(n: int = 24, seed: int = 0) -> PatchDataset:
    data = make_pairs(n, seed)
    return PatchDataset(data.x, data.y, data.spec)


# --- small data, as before ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['variability', 'gaussian', 'spectral_gan'])
def test_a_scene_trains_as_by_its_split(kind: str, scene: Scene, split: Split, data: TrainingData) -> None:
    settings = {'iterations': 3, 'hidden': 16} if kind == 'spectral_gan' else {}
    train, val, free = (SpectraDataset(scene, split, part) for part in ('train', 'val', 'unlabelled'))  # type: ignore[arg-type]
    unlabelled = None if kind == 'gaussian' else free
    generator = hsiaug.fit(kind, train, val=val, unlabelled=unlabelled, seed=3, **settings)
    before = fit_generator(kind, data, settings, seed=3)
    equal(generator, before)
    assert generator.provenance is not None
    assert before.provenance is not None
    assert generator.provenance.seen == before.provenance.seen
    assert generator.provenance.split == before.provenance.split == split.fingerprint
    assert generator.provenance.training == before.provenance.training
    with pytest.raises(LeakageError, match='evaluation pixels'):
        MixedDataset(SpectraDataset(scene, RandomSplit(fraction=0.4)(scene, seed=9)), generator, 0.5)


def test_pairs_train_as_tensors_do() -> None:
    data = make_pairs(24)
    data = replace(data, x=data.x.contiguous())  # as datasets are: convolutions round by the layout in memory
    equal(hsiaug.fit('two_stream_diffusion', pairs(), **TINY), train_two_stream(data, TwoStreamConfig(**TINY)))


def test_two_pooled_scenes_are_both_guarded(scene: Scene, split: Split) -> None:
    other = replace(scene, name='other', cube=scene.cube[::-1].copy(), labels=scene.labels[::-1].copy())  # type: ignore[index]
    parts = [split, RandomSplit(fraction=0.4)(other, seed=1)]
    train = [SpectraDataset(s, p) for s, p in zip((scene, other), parts, strict=True)]
    generator = hsiaug.fit('duplicate', train)
    assert generator.provenance is not None
    assert [f.scene for f in generator.provenance.footprints] == [scene.fingerprint, other.fingerprint]
    MixedDataset(train[1], generator, 0.5)
    for one in (scene, other):
        with pytest.raises(LeakageError, match='evaluation pixels'):
            MixedDataset(SpectraDataset(one, RandomSplit(fraction=0.4)(one, seed=9)), generator, 0.5)


# --- streaming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('workers', 'cache'), [(0, True), (2, False)])
def test_reading_batch_by_batch_trains_what_memory_does(workers: int, cache: bool, tmp_path: Path) -> None:
    settings = {**TINY, 'cache_latents': cache}
    held = hsiaug.fit('two_stream_diffusion', pairs(), **settings)
    read = hsiaug.fit(
        'two_stream_diffusion', pairs(), in_memory=False, workers=workers, folder=tmp_path, settings=settings
    )
    equal(held, read, 1e-5)
    assert held.provenance == read.provenance


def test_the_autoencoder_is_the_same_to_the_bit() -> None:
    settings = {**TINY, 'diffusion_iterations': 1}
    one, other = (hsiaug.fit('two_stream_diffusion', pairs(), in_memory=m, **settings) for m in (None, False))
    equal(one.streams, other.streams)  # type: ignore[arg-type]


def test_samples_are_read_ahead_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    missed: list[Any] = []
    read = Read.read
    monkeypatch.setattr(Read, 'read', lambda self, rows: (missed.append(rows), read(self, rows))[1])
    hsiaug.fit('two_stream_diffusion', pairs(), in_memory=False, workers=1, **TINY, cache_latents=False)
    assert not missed  # in this process


def test_others_say_that_they_hold_their_samples() -> None:
    with pytest.raises(ValueError, match=r'24 samples of 0.0 GB, which this generator would have to hold in memory'):
        hsiaug.fit('patch_augment', pairs(), in_memory=False)


# --- samples without labels -----------------------------------------------------------------------------------------


def test_images_without_masks_teach_the_image_autoencoder_alone() -> None:
    more = Subset(pairs(40, seed=5), range(30))
    settings = {**TINY, 'vae_iterations': 12}
    generators = {
        name: hsiaug.fit('two_stream_diffusion', pairs(), unlabelled=free, in_memory=memory, **settings)
        for name, free, memory in (('without', None, None), ('with', more, None), ('read', more, False))
    }
    equal(generators['with'].streams, generators['read'].streams)  # type: ignore[arg-type]
    states = [generators[name].streams.state_dict() for name in ('without', 'with')]
    assert any(not torch.equal(v, states[1][k]) for k, v in states[0].items() if k.startswith('0.'))
    seen = generators['with'].provenance.samples  # type: ignore[union-attr]
    assert seen is not None
    assert seen.count == 24 + 30
    with pytest.raises(ValueError, match='images without masks cannot teach'):
        hsiaug.fit('two_stream_diffusion', pairs(), unlabelled=more, **settings, single_stream=True)


def test_pairs_without_change_masks_show_the_drift() -> None:
    changes = make_changes(24)
    labelled = ChangeDataset(changes.x, changes.y, changes.spec)
    free = make_changes(20, seed=7)
    settings = {'painter': TINY, 'clusters': 3, 'composites': 1}
    one, other = (
        hsiaug.fit('change_editing', labelled, unlabelled=more, **settings)
        for more in (None, ChangeDataset(free.x, free.y, free.spec))
    )
    assert len(other.drift.residuals) > len(one.drift.residuals)  # type: ignore[union-attr, arg-type]
    land = make_pairs(24)
    single = PatchDataset(land.x, land.y, land.spec)
    drifted = hsiaug.fit('change_editing', single, unlabelled=ChangeDataset(free.x, free.y, free.spec), **settings)
    assert len(drifted.drift.residuals) == 20  # type: ignore[union-attr, arg-type]


def test_who_cannot_use_samples_without_labels_says_so() -> None:
    with pytest.raises(ValueError, match=r"'patch_augment' cannot learn from samples without labels; .*'unmixing_fus"):
        hsiaug.fit('patch_augment', pairs(), unlabelled=pairs(seed=1))
    free = make_changes(8)
    with pytest.raises(ValueError, match=r'its images are \(2, C, H, W\); .* from \(C, H, W\) as in train$'):
        hsiaug.fit('two_stream_diffusion', pairs(), unlabelled=ChangeDataset(free.x, free.y, free.spec), **TINY)


@pytest.mark.parametrize(
    ('kind', 'lacking', 'settings', 'message'),
    [
        ('spectral_gan', {}, {'semi_supervised': True}, 'with the setting semi_supervised=True only'),
        ('variability', {'variability': 0.0}, {'variability': 0.5}, 'with the setting variability above 0 only'),
    ],
)
def test_a_setting_that_is_lacking_is_said(
    scene: Scene, split: Split, kind: str, lacking: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    train, free = (SpectraDataset(scene, split, part) for part in ('train', 'unlabelled'))  # type: ignore[arg-type]
    quick = {'iterations': 2, 'hidden': 8} if kind == 'spectral_gan' else {}
    with pytest.warns(UserWarning, match=f'{kind!r} looks at samples without labels {message}: unlabelled= is left as'):
        given = hsiaug.fit(kind, train, unlabelled=free, **quick, **lacking)
    equal(given, hsiaug.fit(kind, train, **quick, **lacking))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        used = hsiaug.fit(kind, train, unlabelled=free, **quick, **settings)
    unused = hsiaug.fit(kind, train, **quick, **settings).state_dict()
    assert not all(torch.equal(value, unused[key]) for key, value in used.state_dict().items())


def test_the_page_says_who_uses_samples_without_labels() -> None:
    page = (Path(__file__).parents[2] / 'docs' / 'howto' / 'own_dataset.md').read_text()
    table = page[page.index('| system | unlabelled samples') : page.index('All other systems refuse them')]
    assert sorted(re.findall(r'^\| `(\w+)`', table, re.MULTILINE)) == learning_from_unlabelled()


def test_windows_without_labels_become_patches_without_labels(scene: Scene) -> None:
    splitter = LabelledPatchSplitter(size=8, stride=4, patch=4, max_train=2, max_unlabelled=6, on_rare='drop')
    split = splitter(scene, 0)
    free = training_data(scene, split).unlabelled
    seen = {patch.numpy().tobytes() for patch in free}
    assert len(seen) == len(free)
    assert len(split.unlabelled) > 1
    assert 4 < len(free) <= 4 * len(split.unlabelled)
    for row, column in split.unlabelled:
        window = scene.cube[row + 4 : row + 8, column : column + 4].transpose(2, 0, 1).astype(np.float32)  # type: ignore[index]
        assert window.tobytes() in seen
    assert len(training_data(scene, replace(split, unlabelled=split.unlabelled[:0])).unlabelled) == 0


def test_unmixing_sees_images_without_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    from hsiaug.systems.unmixing_fusion import train as module

    class SeenError(Exception):
        pass

    def stop(images: torch.Tensor, *_: Any) -> Any:
        raise SeenError(len(images))

    monkeypatch.setattr(module, 'train_unmixing', stop)
    with pytest.raises(SeenError, match='44'):
        hsiaug.fit('unmixing_fusion', pairs(), unlabelled=pairs(20, 1), unmixing={'inputs': 'all'})


# --- what has been seen ---------------------------------------------------------------------------------------------


def test_an_evaluation_that_shares_samples_is_refused(tmp_path: Path) -> None:
    everything = pairs(60)
    train, val, test = (Subset(everything, range(*ends)) for ends in ((0, 30), (30, 40), (40, 60)))
    generator = hsiaug.fit('patch_augment', train, val=val)
    generator = Generator.from_pretrained(generator.save_pretrained(tmp_path / 'g'))
    assert 'None of 20 samples was seen' in require_unseen_samples(generator, test)
    require_unseen_samples(generator, val, 'val')
    with pytest.raises(LeakageError, match=r'has seen 10 of 10 test samples, .* \[0, 1, 2, 3, 4\]'):
        require_unseen_samples(generator, val)
    with pytest.raises(
        LeakageError, match=r'has seen 3 of 15 val samples, wholly or in part, the first of them \[12, 13'
    ):
        require_unseen_samples(generator, Subset(everything, [*range(30, 42), 4, 5, 6]), 'val')
    MixedDataset(train, generator, 0.5, evaluation=test)
    with pytest.raises(LeakageError, match='has seen 1 of 20 test samples'):
        MixedDataset(train, generator, 0.5, evaluation=[test, Subset(everything, [*range(41, 60), 0])])
    bank = hsiaug.write_bank(generator, 8, tmp_path / 'bank')
    with pytest.raises(LeakageError, match='has seen'):
        require_unseen_samples(bank, train)
    for made in (bank, MixedDataset(test, generator, 0.5)):  # what has learnt from these has seen it, too
        second = hsiaug.fit('patch_augment', made)
        with pytest.raises(LeakageError, match='has seen 30 of 30'):
            require_unseen_samples(second, train)


def test_windows_of_one_image_may_not_overlap() -> None:
    x, y = torch.rand(2, 4, 32, 32), torch.randint(2, (2, 32, 32))
    images = [{'image': image, 'mask': mask} for image, mask in zip(x, y, strict=True)]

    class Images(torch.utils.data.Dataset[Any]):
        classes = ('a', 'b')

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return images[index]

    tiles = adapt(Images(), size=8)
    generator = hsiaug.fit('patch_augment', Subset(tiles, range(8)))  # the upper half of the first image
    said = require_unseen_samples(generator, Subset(tiles, range(8, 32)))
    assert said == 'None of 24 samples was seen, nor a window that overlaps one.'
    shifted = adapt(Images(), size=12)  # the second row of its tiles begins within the half
    with pytest.raises(LeakageError, match=r'has seen 4 of 8 test samples, wholly or in part'):
        require_unseen_samples(generator, shifted)
    with pytest.raises(LeakageError, match='has seen 1 of 2 test samples'):
        require_unseen_samples(generator, Images())
    loose = PatchDataset(x[:, :, 4:12, 4:12], y[:, 4:12, 4:12], tiles.spec)
    assert 'Whether windows overlap cannot be known' in require_unseen_samples(generator, loose)


def test_blank_images_are_shared_by_chance_and_no_leak() -> None:
    data = make_pairs(24)
    data.x[3] = 0
    train = PatchDataset(data.x, data.y, data.spec)
    other = make_pairs(24, seed=8)
    other.x[5] = 0
    generator = hsiaug.fit('patch_augment', train)
    require_unseen_samples(generator, PatchDataset(other.x, other.y, other.spec))


def test_the_record_stays_small_however_many_samples_there_are() -> None:
    rng = np.random.default_rng(0)
    digests = rng.integers(1, 2**63, 2 * KEPT, dtype=np.uint64)
    boxes = Places(digests, np.tile([0.0, 8, 0, 8], (len(digests), 1)))
    seen = SeenSamples.of(digests)
    assert seen.count == 2 * KEPT
    assert len(seen.digests) <= KEPT * 8 * 4 / 3 + 4
    fresh = rng.integers(1, 2**63, 1000, dtype=np.uint64)[:, None]
    assert not seen.shared(fresh, None, True).any()
    assert 400 < seen.shared(digests[:1000, None], None, True).sum() < 600
    both = SeenSamples.of(digests[:10]).joined(SeenSamples.of(digests[5:20], boxes[np.arange(5, 20)]))
    assert both.count == 20
    assert both.shared(digests[:20, None], None, True).all()
    assert not both.placed


def test_generators_saved_before_still_open() -> None:
    older = {'version': '0.1.0', 'seed': 1, 'training': {}, 'split': 'abc', 'seen': None}
    known = Provenance.from_dict(older)
    assert known.samples is None
    assert known.footprints == ()
    again = Provenance.from_dict(json.loads(json.dumps(known.to_dict())))
    assert again == known
    assert 'no record of samples' in require_unseen_samples(known, pairs())


# --- what cannot be learnt from -------------------------------------------------------------------------------------


def test_nothing_is_written_where_data_are_wrong(tmp_path: Path) -> None:
    data = make_pairs(24)
    absent = replace(data.spec, classes=('a', 'b', 'c', 'd'))
    for dataset, message in (
        (PatchDataset(data.x, data.y, absent), r"none of 24 samples holds \['d'\]"),
        (Subset(pairs(), []), 'train .Subset. is empty'),
    ):
        with pytest.raises(ValueError, match=message):
            hsiaug.fit('two_stream_diffusion', dataset, folder=tmp_path / 'run', **TINY)
    with pytest.raises(ValueError, match=r'samples of train and val do not match.*\n.*classes'):
        data_of(pairs(), PatchDataset(data.x, data.y, absent))
    with pytest.raises(ValueError, match='unknown'):
        hsiaug.fit('two_stream_diffusion', pairs(), folder=tmp_path / 'run', steps=3)
    assert not (tmp_path / 'run').exists()
    with pytest.warns(UserWarning, match=r'val .* holds samples that train .* holds too'):
        data_of(pairs(), Subset(pairs(), range(5)))


# --- real data ------------------------------------------------------------------------------------------------------


def test_bark_beetles_end_to_end(real_data: Path, tmp_path: Path) -> None:
    raw = BarkBeetles(real_data, range(12))
    train = adapt(raw, size=32, unit='reflectance')
    free = BarkBeetles(real_data, range(20, 30), masked=False)
    generator = hsiaug.fit('two_stream_diffusion', train, unlabelled=free, **TINY)
    mixed = MixedDataset(train, generator, ratio=0.5, evaluation=BarkBeetles(real_data, range(40, 50)))
    assert mixed[len(mixed) - 1]['image'].shape == (2, 12, 32, 32)
    with pytest.raises(LeakageError, match='has seen 5 of 5 test samples'):
        MixedDataset(train, generator, ratio=0.5, evaluation=BarkBeetles(real_data, range(25, 30), masked=False))
    folder = PairFolder(write_geotiffs(raw, tmp_path, range(12), (), 32), raw.classes)
    augmented = hsiaug.fit('patch_augment', Subset(folder, range(8)), kind='flips')
    with pytest.raises(LeakageError, match=r'has seen 1 of 5 test samples, .* \[0\]'):
        require_unseen_samples(augmented, Subset(folder, range(7, 12)))


def test_torchgeos_oscd_end_to_end(real_data: Path, tmp_path: Path) -> None:
    bands = ('B02', 'B03', 'B04', 'B08')
    cities = [
        oscd(write_oscd_cities(real_data, tmp_path / city, (city,), 96), bands) for city in ('bercy', 'paris', 'rennes')
    ]
    train, test = adapt(cities[:2], size=16), adapt(cities[2], size=16)
    generator = hsiaug.fit('two_stream_diffusion', train, **TINY)
    mixed = MixedDataset(train, generator, ratio=0.5, evaluation=test)
    assert mixed[len(mixed) - 1]['mask'].shape == (1, 16, 16)
    editing = hsiaug.fit(
        'change_editing', cities[0], size=16, unlabelled=cities[1], painter=TINY, clusters=3, composites=1
    )
    assert editing.sample(2, seed=0)['image'].shape == (2, 2, 4, 16, 16)
    with pytest.raises(LeakageError, match='has seen'):
        require_unseen_samples(editing, adapt(cities[1], size=32))


# --- precision ------------------------------------------------------------------------------------------------------


def test_the_precision_is_that_of_the_part_that_has_one() -> None:
    def settings(kind: str, **given: Any) -> Any:
        trainer = trainer_of(kind)
        assert trainer is not None
        return trainer.settings(kind, given)

    assert settings('two_stream_diffusion', precision='bf16-mixed').precision == 'bf16'
    assert settings('msrresgan', precision='32-true').precision == '32'
    assert settings('unmixing_fusion', precision='tf32').abundances.precision == 'tf32'
    changing = settings('change_editing', precision='bf16-mixed', painter={'vae_channels': 4}).painter
    assert (changing.precision, changing.vae_channels) == ('bf16', 4)
    assert settings('change_editing', precision='bf16', painter={'precision': 'tf32'}).painter.precision == 'tf32'
    with pytest.raises(ValueError, match='precision'):
        settings('spectral_gan', precision='bf16')
    with pytest.raises(ValueError, match='precision'):
        settings('change_editing', precision='16-mixed')


@pytest.mark.parametrize('kind', ['gain_offset', 'gaussian', 'mixup', 'relighting', 'variability', 'spectral_gan'])
def test_generators_of_spectra_refuse_images(kind: str) -> None:
    with pytest.raises(ValueError, match=r"makes samples of kind 'spectrum', found 'segmentation'"):
        hsiaug.fit(kind, pairs())
    with pytest.raises(ValueError, match=r"makes samples of kind 'spectrum' or 'scene', found 'segmentation'"):
        hsiaug.fit('duplicate', pairs())  # which would give labels and no masks


def test_what_does_not_count_is_neither_learnt_nor_drawn(scene: Scene, split: Split) -> None:
    """A label beyond the classes, or that of a class, as the ignore index."""
    real = SpectraDataset(scene, split, 'train')
    spectra = [{**real[i], 'label': 255 if i % 7 == 0 else int(real[i]['label'])} for i in range(len(real))]
    for kind in ('variability', 'gaussian', 'mixup', 'noise'):
        drawn = hsiaug.fit(kind, spectra, classes=real.spec.classes, ignore_index=255).sample(50, seed=0)
        assert set(drawn['label'].tolist()) == {0, 1, 2}
        drawn = hsiaug.fit(kind, [real[i] for i in range(len(real))], classes=real.spec.classes, ignore_index=0).sample(
            50, seed=0
        )
        assert set(drawn['label'].tolist()) == {1, 2}
    held = pairs()
    held.spec = replace(held.spec, ignore_index=0)
    paste = hsiaug.fit('region_paste', held)
    assert paste.class_prior[0] == 0
    assert (paste.sample(8, seed=0)['mask'] != 0).flatten(1).any(dim=1).all()
