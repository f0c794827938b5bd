from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_scene
from torch import Tensor
from torch.utils.data import DataLoader
from toys import Toy, mask_of, toy_spec

from hsiaug import __version__
from hsiaug.datasets import IGNORE, MixedDataset, PatchDataset, SyntheticDataset
from hsiaug.datasets.image_files import fill_missing
from hsiaug.samples import LeakageError, Provenance, Sample, SampleSpec
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


def test_loader_transforms_and_batches(scene: Scene, split: PatchSplit) -> None:
    dataset = PatchDataset.from_scene(scene, split, 'train', lambda s: {**s, 'image': s['image'] + 1})
    order = [3, 0, -1]
    batch = dataset.batch(order)
    assert torch.equal(batch['image'], dataset.image[order])
    assert torch.equal(batch['mask'], dataset.mask[order])
    for row, index in enumerate(order):
        assert torch.equal(dataset[index]['image'], batch['image'][row] + 1)
    loaded = list(DataLoader(dataset, batch_size=4))
    assert torch.equal(torch.cat([b['image'] for b in loaded]), dataset.image + 1)
    assert torch.equal(torch.cat([b['mask'] for b in loaded]), dataset.mask)
    with pytest.raises(IndexError, match=f'out of range for {len(dataset)} samples'):
        dataset[len(dataset)]
    with pytest.raises(IndexError, match=f'out of range for {len(dataset)} samples'):
        dataset[-len(dataset) - 1]
    # What a caller writes into a sample stays out of the dataset.
    before = dataset.image[0].clone()
    dataset.batch([0])['image'].zero_()
    assert torch.equal(dataset.image[0], before)


class Drawn:
    """Patches of a source that has seen what its provenance says."""

    def __init__(self, dataset: PatchDataset, provenance: Provenance) -> None:
        self.spec, self.provenance, self.image, self.mask = dataset.spec, provenance, dataset.image, dataset.mask

    def sample(self, n: int, labels: Tensor | None = None, seed: int | None = None) -> dict[str, Tensor]:
        rows = torch.arange(n) % len(self.image)
        return {'image': self.image[rows] + 7, 'mask': self.mask[rows]}


def test_a_generator_that_saw_test_pixels_is_refused(scene: Scene, split: PatchSplit) -> None:
    def provenance(of: PatchSplit) -> Provenance:
        return Provenance(__version__, 0, {}, of.fingerprint, of.footprint())

    train, test = (PatchDataset.from_scene(scene, split, part) for part in ('train', 'test'))  # type: ignore[arg-type]
    honest = Drawn(train, provenance(split))
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
            MixedDataset(train, Drawn(train, provenance(other)), 0.5)
    # A single pixel of a test window is enough.
    corner = replace(split, test_windows=np.array([[8, 8]]))
    touching, beside = (replace(split, train=np.array([[1, c]]), val=split.val[:0]) for c in (1, 0))
    evaluated = PatchDataset(train.image, train.mask, train.spec, corner)
    MixedDataset(evaluated, Drawn(train, provenance(beside)), 0.5)
    with pytest.raises(LeakageError, match=r'has seen 1 of 64 evaluation pixels, first flat indices \[328\]'):
        MixedDataset(evaluated, Drawn(train, provenance(touching)), 0.5)


def test_patches_are_a_source_too(scene: Scene, split: PatchSplit) -> None:
    train = PatchDataset.from_scene(scene, split, 'train')
    mixed = MixedDataset(train, train, 1.0, labels={'roof': 1.0}, replacement=True)
    batch = mixed.batch(range(len(mixed)))
    drawn = batch['mask'][batch['synthetic']]
    share = [float((mask == 2).sum() / (mask != IGNORE).sum()) for mask in (drawn, train.mask)]
    assert share[0] > share[1] + 0.05


def test_any_segmentation_dataset_is_read_as_it_is() -> None:
    toy = Toy('segmentation', 7)
    patches = PatchDataset.from_dataset(toy)
    assert torch.equal(patches.image, toy.data['image'])
    assert torch.equal(mask_of(patches.image), patches.mask)
    assert patches.spec == toy.spec

    class Torchgeo(Toy):
        """No spec, and masks with a channel."""

        def __init__(self) -> None:
            super().__init__('segmentation', 3)
            del self.spec

        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return {**sample, 'mask': sample['mask'][None].int()}

    theirs = PatchDataset.from_dataset(Torchgeo(), toy_spec('segmentation'))
    assert torch.equal(theirs.mask, toy.data['mask'][:3])
    halves = [{**toy[k], 'mask': toy[k]['mask'] / 2} for k in range(7)]
    with pytest.raises(ValueError, match='sample 0: whole numbers are expected in its mask'):
        PatchDataset.from_dataset(halves, toy.spec)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='Torchgeo has no spec'):
        PatchDataset.from_dataset(Torchgeo())
    with pytest.raises(ValueError, match=r'sample 0 has image \(5, 8, 8\) and mask .*expected \(4, 8, 8\)'):
        PatchDataset.from_dataset(toy, replace(toy.spec, bands=4))


def test_mistakes_are_named(scene: Scene, split: PatchSplit) -> None:
    spec = toy_spec('segmentation', ignore_index=IGNORE)
    image, mask = torch.rand(3, 5, 8, 8), torch.zeros(3, 8, 8, dtype=torch.int64)
    PatchDataset(image, mask, spec)
    with pytest.raises(ValueError, match=r"kind 'segmentation' is needed, found 'scene'"):
        PatchDataset(image, mask, toy_spec('scene'))
    with pytest.raises(ValueError, match=r'mask must be \(3, 8, 8\) torch.int64, found \(3, 8, 8\) torch.int32'):
        PatchDataset(image, mask.int(), spec)
    with pytest.raises(ValueError, match=r'mask must be \(3, 8, 8\) torch.int64, found \(2, 8, 8\)'):
        PatchDataset(image, mask[:2], spec)
    with pytest.raises(ValueError, match=r'image must be \(3, 5, 8, 8\) torch.float32, found \(3, 5, 8, 7\)'):
        PatchDataset(image[..., :7], mask, spec)
    bad = image.clone()
    bad[1, 2, 3, 4] = torch.nan
    with pytest.raises(ValueError, match='1 of 3 samples hold NaN or infinite values in image, the first is sample 1'):
        PatchDataset(bad, mask, spec)
    wrong = mask.clone()
    wrong[2, 0, 0], wrong[2, 0, 1] = 3, IGNORE
    with pytest.raises(ValueError, match=r'mask of sample 2 holds \[3\], expected 0 to 2 or 255'):
        PatchDataset(image, wrong, spec)
    with pytest.raises(ValueError, match=r'mask of sample 2 holds \[3, 255\], expected 0 to 2'):
        PatchDataset(image, wrong, toy_spec('segmentation'))
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
    drawn = SyntheticDataset(Drawn(train, Provenance(__version__, 0, {})), 5, labels='uniform')  # type: ignore[arg-type]
    assert torch.equal(drawn[3]['mask'], train.mask[3])
