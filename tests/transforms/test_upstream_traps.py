"""What upstream gets wrong, and why we wrap it. A test that fails here says which of our wrappers can go."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import albumentations as A
import kornia.augmentation as K
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchgeo.datamodules import LEVIRCDDataModule, NonGeoDataModule, OSCDDataModule
from torchgeo.datasets import NonGeoDataset
from torchgeo.trainers import ChangeDetectionTask

from hsiaug.samples import Sample
from hsiaug.transforms.bitemporal import BitemporalAugmentation, make_change_safe


def mended(what: str, where: str) -> None:
    pytest.fail(f'upstream has mended this: {what}; drop our wrapper, see {where}')


def aligned_pairs(augmentation: Callable[[dict[str, Tensor]], dict[str, Tensor]], bands: int = 3) -> bool:
    """Whether pairs in torchgeo's layout come through with both dates and the mask still in place."""
    number = torch.randperm(32 * 32).reshape(32, 32).float()
    try:
        for _ in range(4):
            batch = augmentation({'image': number.repeat(4, 2, bands, 1, 1), 'mask': number.long().repeat(4, 1, 1, 1)})
            image, mask = batch['image'], batch['mask']
            # A normalisation keeps the order of a window's values, and no two windows have the same.
            if mask.shape != (4, 1, *image.shape[-2:]) or not all(
                torch.equal(picture.flatten().argsort(), place.flatten().argsort())
                for pair, place in zip(image, mask, strict=True)
                for picture in pair.flatten(0, 1)
            ):
                return False
    except Exception:  # whatever it raises, it does not work
        return False
    return True


AUGMENTATIONS = (K.Normalize(torch.zeros(3), torch.ones(3)), K.RandomCrop((8, 8)), K.RandomHorizontalFlip(p=0.5))


@pytest.mark.parametrize('augmentation', AUGMENTATIONS, ids=lambda a: type(a).__name__)
def test_kornias_video_sequential_cannot_take_change_masks(augmentation: Any) -> None:
    torch.manual_seed(0)
    sequential = K.AugmentationSequential(K.VideoSequential(augmentation), data_keys=None, keepdim=True)
    if aligned_pairs(sequential):
        mended('VideoSequential takes (B, 2, C, H, W) with (B, 1, H, W)', 'transforms/bitemporal.py')
    assert aligned_pairs(BitemporalAugmentation.from_kornia(sequential)), 'our wrapper does not mend it'


@pytest.mark.parametrize(
    ('datamodule', 'attribute', 'bands'),
    [(OSCDDataModule, 'aug', 13), (LEVIRCDDataModule, 'train_aug', 3), (LEVIRCDDataModule, 'val_aug', 3)],
)
def test_torchgeos_change_datamodules_cannot_augment_their_own_batches(
    datamodule: type[NonGeoDataModule], attribute: str, bands: int
) -> None:
    torch.manual_seed(0)
    instance = datamodule(patch_size=16)
    if aligned_pairs(getattr(instance, attribute), bands):
        mended(f'{datamodule.__name__}.{attribute} works on its own batches', 'transforms/bitemporal.py')
    make_change_safe(instance)
    assert aligned_pairs(getattr(instance, attribute), bands), 'our wrapper does not mend it'


class Pairs(NonGeoDataset):
    def __init__(self, split: str = 'train') -> None:
        self.split = split

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        return {'image': torch.rand(2, 3, 16, 16), 'mask': torch.zeros(1, 16, 16, dtype=torch.int64)}


class FigureLogger(Logger):
    """Takes figures, as TensorBoard's does."""

    name, version = 'figures', 0

    def __init__(self) -> None:
        super().__init__()
        self.experiment = SimpleNamespace(add_figure=lambda *args, **kwargs: None)

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


@pytest.mark.parametrize('figures', [False, True])
def test_torchgeos_change_task_cannot_validate_where_figures_are_logged(figures: bool) -> None:
    datamodule = NonGeoDataModule(Pairs, batch_size=2)
    datamodule.aug = dict
    task = ChangeDetectionTask(model='fcn', in_channels=3, num_filters=4, task='binary', loss='bce')
    trainer = Trainer(
        accelerator='cpu',
        logger=FigureLogger() if figures else False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    try:
        metrics = trainer.validate(task, datamodule=datamodule, verbose=False)
    except ValueError:
        assert figures, 'validation fails even without a logger'
    else:
        assert np.isfinite(metrics[0]['val_loss'])
        if figures:
            mended('ChangeDetectionTask plots validation pairs', 'datamodules/mixed.py')


class Replace(K.IntensityAugmentationBase2D):
    """A child that replaces images, and their labels where it is asked to."""

    def apply_transform(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.full_like(input, 7)

    def apply_transform_class(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.full_like(input, 7)


def test_a_child_of_kornias_sequential_cannot_replace_labels() -> None:
    sequential = K.AugmentationSequential(Replace(p=1.0), data_keys=None)
    batch = sequential({'image': torch.zeros(3, 1, 4, 4), 'label': torch.arange(3)})
    assert (batch['image'] == 7).all()
    if batch['label'].tolist() == [7, 7, 7]:
        mended('children of AugmentationSequential can replace labels', 'transforms/kornia.py')
    assert batch['label'].tolist() == [0, 1, 2]


class Noisy(Dataset[Tensor]):
    """The first value that each of eight samples gets from an albumentations transform."""

    def __init__(self, transform: A.Compose) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(self.transform(image=np.zeros((4, 4, 3), np.float32))['image'].sum(dtype=np.float64))


@pytest.mark.parametrize('seed', [None, 5])
def test_albumentations_repeats_its_stream_in_workers_and_epochs(seed: int | None) -> None:
    transform = A.Compose([A.GaussNoise(std_range=(0.2, 0.5), mean_range=(0.5, 0.5), p=1.0)], seed=seed)
    torch.manual_seed(0)  # and with it what every worker of every epoch is seeded from
    loader = DataLoader(Noisy(transform), batch_size=4, num_workers=2, multiprocessing_context='fork')
    epochs = [torch.stack(list(loader)) for _ in range(2)]
    (first, second), _ = epochs
    assert first.unique().numel() == 4, 'one worker repeats a value'
    if not torch.equal(first, second):
        mended('albumentations draws anew in every worker', 'transforms/albumentations.py')
    if not torch.equal(*epochs):
        mended('albumentations draws anew in every epoch', 'transforms/albumentations.py')


def test_albumentations_gives_all_children_of_a_seeded_pipeline_one_stream() -> None:
    transform = A.Compose([A.GaussNoise(p=1.0), A.RandomBrightnessContrast(p=1.0)], seed=5)
    one, other = (child.random_generator.random() for child in transform.transforms)
    if one != other:
        mended('children of a seeded Compose have streams of their own', 'transforms/albumentations.py')


def test_albumentations_returns_int64_masks_as_int32() -> None:
    mask = np.arange(16, dtype=np.int64).reshape(4, 4)
    result = A.Compose([A.HorizontalFlip(p=1.0)])(image=np.zeros((4, 4, 3), np.float32), mask=mask)['mask']
    np.testing.assert_array_equal(result, mask[:, ::-1])
    if result.dtype == np.int64:
        mended('albumentations keeps int64 masks', 'transforms/albumentations.py')
