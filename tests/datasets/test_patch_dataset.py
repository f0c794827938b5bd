from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_scene
from toys import Replayed, toy_spec

from hsiaug.datasets import IGNORE, MixedDataset, PatchDataset, SyntheticDataset
from hsiaug.datasets.real.held import fill_missing
from hsiaug.samples import LeakageError, SampleSpec
from hsiaug.scenes import PatchSplit, PatchSplitter, Scene
from hsiaug.scenes.labels import class_positions


@pytest.fixture(scope='module')
def scene() -> Scene:
    """Stored as scaled integers, some pixels not measured, a class too rare, and one band out of use."""
    scene = make_scene(height=48, width=40, bands=6)
    assert scene.labels is not None
    labels = scene.labels * 5
    labels[4, 6:9] = 7
    cube = (scene.cube * 1000).round().astype(np.int16)
    cube[::7, ::5, 2] = -32768
    names = {5: 'grass', 7: 'rare', 10: 'soil', 15: 'roof'}
    return Scene(
        'scaled', cube, labels, names, np.arange(6) * 100.0 + 400, bands=np.array([0, 2, 3, 5]), scale=0.001,
        unit='reflectance', nodata=-32768,
    )  # fmt: skip


@pytest.fixture(scope='module')
def split(scene: Scene) -> PatchSplit:
    return PatchSplitter(size=8)(scene, seed=1)


def test_images_and_masks_are_those_of_the_scene(scene: Scene, split: PatchSplit) -> None:
    assert split.classes == (5, 10, 15)
    assert scene.labels is not None
    for part in ('train', 'val', 'test'):
        dataset = PatchDataset.from_scene(scene, split, part)  # type: ignore[arg-type]
        corners = split.windows(part)  # type: ignore[arg-type]
        assert len(dataset) == len(corners)
        assert dataset.split is split
        for index, (row, column) in enumerate(corners):
            sample = dataset[index]
            assert (sample['image'].dtype, sample['mask'].dtype) == (torch.float32, torch.int64)
            for r in range(8):
                for c in range(8):
                    stored = scene.cube[row + r, column + c, [0, 2, 3, 5]]
                    label = {5: 0, 10: 1, 15: 2}.get(int(scene.labels[row + r, column + c]), IGNORE)
                    if -32768 in stored:
                        assert sample['mask'][r, c] == IGNORE
                    else:
                        assert sample['mask'][r, c] == label
                        assert np.array_equal(
                            sample['image'][:, r, c].numpy(), stored.astype(np.float32) * np.float32(0.001)
                        )


def test_spec_says_what_patches_are(scene: Scene, split: PatchSplit) -> None:
    assert PatchDataset.from_scene(scene, split).spec == SampleSpec(
        'segmentation', 4, ('grass', 'soil', 'roof'), (400.0, 600.0, 700.0, 900.0), size=(8, 8), ignore_index=255,
        unit='reflectance',
    )  # fmt: skip


def test_missing_pixels_hold_the_mean_of_their_window(scene: Scene, split: PatchSplit) -> None:
    dataset = PatchDataset.from_scene(scene, split, 'train')
    valid = scene.valid.reshape(scene.shape)
    filled = 0
    for index, (row, column) in enumerate(split.train):
        inside = torch.from_numpy(valid[row : row + 8, column : column + 8])
        image = dataset.image[index]
        mean = image[:, inside].double().mean(dim=1)
        missing = image[:, ~inside].double()
        torch.testing.assert_close(missing, mean[:, None].expand_as(missing), rtol=1e-5, atol=1e-6)
        filled += int((~inside).sum())
    assert filled > 20
    empty = np.full((2, 3, 3), np.nan, dtype=np.float32)
    fill_missing(empty, np.zeros((3, 3), dtype=bool))
    assert (empty == 0).all()


def test_labels_by_the_order_of_the_classes() -> None:
    labels = np.array([[0, 3, 9], [1, 12, -1]])
    assert class_positions(labels, (9, 1, 3), IGNORE).tolist() == [[IGNORE, 2, 0], [1, IGNORE, IGNORE]]


def test_fractions_and_counts(scene: Scene, split: PatchSplit) -> None:
    dataset = PatchDataset.from_scene(scene, split, 'test')
    dataset.mask[0] = IGNORE
    counts = torch.stack([(dataset.mask == k).flatten(1).sum(dim=1) for k in range(3)], dim=1)
    assert dataset.class_counts.tolist() == counts.sum(dim=0).tolist()
    fractions = dataset.class_fractions()
    assert fractions.dtype == torch.float32
    assert fractions[0].tolist() == [0, 0, 0]
    torch.testing.assert_close(fractions[1:], (counts / counts.sum(dim=1, keepdim=True))[1:])
    one_ignored = PatchDataset(
        torch.zeros(1, 5, 8, 8), torch.ones(1, 8, 8).long(), toy_spec('segmentation', ignore_index=1)
    )
    assert one_ignored.class_counts.tolist() == one_ignored.class_fractions()[0].tolist() == [0, 0, 0]


def test_a_generator_that_saw_test_pixels_is_refused(scene: Scene, split: PatchSplit) -> None:
    train, test = (PatchDataset.from_scene(scene, split, part) for part in ('train', 'test'))  # type: ignore[arg-type]
    honest = Replayed(train, split)
    for real in (train, test):
        mixed = MixedDataset(real, honest, 0.5)
        batch = mixed.batch(range(len(mixed)))
        assert int(batch['synthetic'].sum()) == round(0.5 * len(real))
        assert torch.equal(batch['image'][~batch['synthetic']], real.image)
        assert (batch['image'][batch['synthetic']] > 6).all()
    others = [PatchSplitter(size=8)(scene, seed) for seed in (2, 3)]
    assert all(np.intersect1d(other.footprint().pixels(), split.test).size for other in others)
    for other in others:
        with pytest.raises(LeakageError, match=r'has seen \d+ of \d+ evaluation pixels'):
            MixedDataset(train, Replayed(train, other), 0.5)
    # A single pixel of a test window is enough.
    corner = replace(split, test_windows=np.array([[8, 8]]))
    touching, beside = (replace(split, train=np.array([[1, c]]), val=split.val[:0]) for c in (1, 0))
    evaluated = PatchDataset(train.image, train.mask, train.spec, corner)
    MixedDataset(evaluated, Replayed(train, beside), 0.5)
    with pytest.raises(LeakageError, match=r'has seen 1 of 64 evaluation pixels, first flat indices \[328\]'):
        MixedDataset(evaluated, Replayed(train, touching), 0.5)


def test_patches_are_a_source_too(scene: Scene, split: PatchSplit) -> None:
    train = PatchDataset.from_scene(scene, split, 'train')
    mixed = MixedDataset(train, train, 1.0, labels={'roof': 1.0}, replacement=True)
    batch = mixed.batch(range(len(mixed)))
    drawn = batch['mask'][batch['synthetic']]
    share = [float((mask == 2).sum() / (mask != IGNORE).sum()) for mask in (drawn, train.mask)]
    assert share[0] > share[1] + 0.05


def test_splits_and_parts_that_do_not_fit_are_named(scene: Scene, split: PatchSplit) -> None:
    with pytest.raises(ValueError, match='the split was made for scene'):
        PatchDataset.from_scene(make_scene(seed=5), split)
    with pytest.raises(ValueError, match="unknown part 'unlabelled'"):
        PatchDataset.from_scene(scene, split, 'unlabelled')  # type: ignore[arg-type]


def test_plot_shows_image_mask_and_prediction(scene: Scene, split: PatchSplit) -> None:
    dataset = PatchDataset.from_scene(scene, split)
    sample = dataset[0]
    figure = dataset.plot({**sample, 'prediction': torch.zeros(8, 8, dtype=torch.int64)}, suptitle='a patch')
    figure.canvas.draw()
    axes = [a for a in figure.axes if a.images]
    assert [a.get_title() for a in axes] == ['image', 'mask', 'prediction']
    mask, prediction = (a.images[0].get_array() for a in axes[1:])
    assert len(np.unique(prediction.reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(mask.reshape(-1, 3), axis=0)) == len(sample['mask'].unique())
    assert len(dataset.plot(sample, show_titles=False).axes) == 2
    assert "'grass':" in str(dataset)


def test_synthetic_patches_of_a_live_source_follow_the_spec(scene: Scene, split: PatchSplit) -> None:
    train = PatchDataset.from_scene(scene, split)
    drawn = SyntheticDataset(Replayed(train), 5, labels='uniform')  # type: ignore[arg-type]
    assert torch.equal(drawn[3]['mask'], train.mask[3])
