"""Folders of images as public data sets come: with masks in another, or in a sub-folder per class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...progress import with_progress
from ...samples import Sample, Transform, as_classes, class_counts
from ...scenes.files import FilesNotFoundError
from ...scenes.layout import Layout
from ..contract.batches import row_numbers
from ..real.held import IGNORE, RealDataset, as_fractions
from .image_files import IMAGE_SUFFIXES, ImageFiles, MaskFiles, image_files, subfolders
from .matching import entries, matched, only_one, root_of

IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img')
MASK_FOLDERS = ('masks', 'mask', 'labels', 'label', 'annotations')


class PairFolder(RealDataset):
    """Images and masks in two folders, paired by file stem and read on demand.

    Folders such as those of SegMunich: ``img/`` or ``images/``, and ``label/`` or ``masks/``. Files may be GeoTIFF,
    PNG, ENVI, NumPy, HDF5 or MATLAB, images also JPEG. All images must have the size and bands of the first. Pixels not
    measured in an image (nodata, NaN, transparent) get the mean of its other pixels and are ignored in its mask.
    Negative mask values, NaN and a mask file's own nodata are ignored unless they are classes.

    Args:
        root: folder that holds both.
        classes: names of the K classes, in label order.
        split: ``root/<split>.txt`` with a stem or file name per line, or folders ``root/<split>/`` or
            ``images/<split>/`` and ``masks/<split>/``; None for all pairs.
        images: sub-folder of the images; if None, found by its usual names.
        masks: sub-folder of the masks; if None, found by its usual names.
        bands: indices of the bands to use, 0-based.
        wavelengths: centres in nm of all bands of a file; if None, those of the first file.
        label_map: value in a mask file to class index; if None, values are class indices 0..K-1.
        ignore: values in a mask file of pixels to ignore.
        scale: factor from stored values to values in ``unit``; if None, a file's own scale and offset.
        unit: physical unit.
        nodata: stored value that means "no measurement"; if None, a file's own.
        image_key: variable of the image in ``.npz`` and ``.mat`` files with several variables.
        mask_key: variable of the mask in such files.
        layout: position of the bands in arrays, ``'hwc'``, ``'chw'`` or ``'hcw'``; if None, the first mask decides.
        transforms: function of a sample, as in torchgeo.

    Raises:
        DatasetNotFoundError: if a folder or the split is missing.
        ValueError: if an image or mask lacks its partner, or settings contradict each other.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        classes: Sequence[str],
        split: str | None = None,
        images: str | None = None,
        masks: str | None = None,
        bands: Sequence[int] | None = None,
        wavelengths: Sequence[float] | None = None,
        label_map: Mapping[int, int] | None = None,
        ignore: Sequence[int] = (),
        scale: float | None = None,
        unit: str | None = None,
        nodata: float | None = None,
        image_key: str | None = None,
        mask_key: str | None = None,
        layout: Layout | None = None,
        transforms: Transform | None = None,
    ) -> None:
        self.root, split = root_of('PairFolder', root, split, 'a folder of images and one of masks')
        self.transforms = transforms
        self.masks = MaskFiles('PairFolder', classes, label_map, ignore, mask_key)
        folders = []
        for what, name, usual in (('images', images, IMAGE_FOLDERS), ('masks', masks, MASK_FOLDERS)):
            found = [path for path in entries(self.root, name, usual) if path.is_dir()]
            wanted = f'no folder {name or " or ".join(usual)}'
            folders.append(only_one('PairFolder', what, found, self.root, wanted, ', or give split='))
        self.pairs = [files for _, files in matched('PairFolder', self.root, folders[:1], folders[1:], split)]
        self._counts: np.ndarray | None = None
        image, mask = self.pairs[0]
        self.files = ImageFiles(
            'PairFolder', image, bands, wavelengths, scale, nodata, image_key, layout, lambda: self.masks.size(mask)
        )
        self.spec = self.files.spec('segmentation', classes, unit, IGNORE)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (C, H, W) float32 in the unit and ``mask`` (H, W) int64.

        Raises:
            ValueError: naming the file that does not match the others or holds an unknown mask value.
        """
        image, valid, mask = self._read(*self.pairs[int(row_numbers([index], len(self), 'PairFolder')[0])])
        mask = np.where(valid, mask, IGNORE)
        return self._transformed({'image': torch.from_numpy(image), 'mask': torch.from_numpy(mask)})

    def _read(self, image_file: Path, mask_file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """An image, where it is measured, and its mask."""
        image, valid, content = self.files.read(image_file)
        return image, valid, self.masks.read(mask_file, valid.shape, content)

    def class_pixels(self) -> np.ndarray:
        """(N, K) pixels per class of each pair. Reads every file once, without ``transforms``."""
        if self._counts is None:
            counts = np.zeros((len(self), self.spec.num_classes), dtype=np.int64)
            unmeasured = np.zeros(self.spec.num_classes, dtype=np.int64)
            pairs = with_progress(self.pairs, True, desc='class fractions', unit='pair')
            for row, pair in enumerate(pairs):
                _, valid, labels = self._read(*pair)
                counted = labels != IGNORE
                counts[row] = np.bincount(labels[counted & valid], minlength=self.spec.num_classes)
                unmeasured += np.bincount(labels[counted & ~valid], minlength=self.spec.num_classes)
            self._counts = counts
            if hidden := [self.spec.classes[k] for k in np.flatnonzero(unmeasured * (counts.sum(axis=0) == 0))]:
                warnings.warn(
                    f'PairFolder: {hidden} occur in masks, but only where the images are not measured (nodata, NaN or '
                    'transparent), so they count nowhere; give another nodata if these pixels are measured',
                    stacklevel=3,
                )
        return self._counts

    def class_fractions(self) -> Tensor:
        """(N, K) float32 share of each class in the valid pixels of each mask; zeros where all are ignored."""
        return as_fractions(torch.from_numpy(self.class_pixels()))

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) number of pixels per class."""
        return self.class_pixels().sum(axis=0)


class SceneFolder(RealDataset):
    """Images in one folder per class, read on demand.

    GeoTIFF, PNG, JPEG, ENVI, NumPy, HDF5 and MATLAB, of any number of bands; all images have the size and bands
    of the first. Pixels that an image has not measured (nodata, NaN) hold the mean of its other pixels. For training
    read them into memory once: :meth:`SceneDataset.from_dataset`.

    Args:
        root: folder that holds a folder per class.
        classes: names of the class folders, in label order; all folders in the order of their names if None.
        split: sub-folder of the root that holds the class folders, such as ``'train'``; None for the root itself.
        bands, wavelengths, scale, unit, nodata, image_key, transforms: as for :class:`PairFolder`.
        layout: ``'hwc'``, ``'chw'`` or ``'hcw'``, where the bands are in arrays; None is ``'hwc'``, and refused if
            another is likely.

    Raises:
        DatasetNotFoundError: if the root, the split or the folder of a class is missing.
        ValueError: if a class has no images, or settings contradict each other.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        classes: Sequence[str] | None = None,
        split: str | None = None,
        bands: Sequence[int] | None = None,
        wavelengths: Sequence[float] | None = None,
        scale: float | None = None,
        unit: str | None = None,
        nodata: float | None = None,
        image_key: str | None = None,
        layout: Layout | None = None,
        transforms: Transform | None = None,
    ) -> None:
        self.root, self.transforms = Path(root).expanduser() / (split or ''), transforms
        if not self.root.is_dir():
            raise FilesNotFoundError(f'SceneFolder: no folder {self.root}; it should hold a folder per class')
        found = [path.name for path in subfolders(self.root)]
        names = tuple(found) if classes is None else as_classes(classes, 'SceneFolder')
        if missing := [name for name in names if name not in found]:
            raise FilesNotFoundError(f'SceneFolder: no folders {missing} in {self.root}, which holds {found}')
        self.images = [(file, k) for k, name in enumerate(names) for file in image_files(self.root / name)]
        held = class_counts([k for _, k in self.images], len(names))
        if not names or (held == 0).any():
            empty = [name for name, count in zip(names, held, strict=True) if not count]
            raise ValueError(
                f'SceneFolder: no images with {IMAGE_SUFFIXES} in '
                + (f'the class folders {empty} of {self.root}; leave these out of classes' if names else str(self.root))
                + '; if a folder holds a split, give split='
            )
        self.files = ImageFiles('SceneFolder', self.images[0][0], bands, wavelengths, scale, nodata, image_key, layout)
        self.spec = self.files.spec('scene', names, unit)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (C, H, W) float32 in the unit and ``label`` () int64.

        Raises:
            ValueError: naming the file that does not fit the others.
        """
        file, label = self.images[int(row_numbers([index], len(self), 'SceneFolder')[0])]
        return self._transformed({'image': torch.from_numpy(self.files.read(file)[0]), 'label': torch.tensor(label)})

    @property
    def labels(self) -> Tensor:
        """(N,) int64 labels."""
        return torch.tensor([label for _, label in self.images])

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) number of images per class."""
        return class_counts(self.labels, self.spec.num_classes)
