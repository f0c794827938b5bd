"""Images with one label each: patches of a scene, and folders with one sub-folder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..samples import Sample, SampleSpec, Transform, as_classes, class_counts
from ..scenes import Scene
from ..scenes.labelled_patches import LabelledPatchSplit
from ..scenes.layout import Layout
from ..scenes.patches import PatchPart
from .held import HeldSamples, RealDataset
from .image_files import IMAGE_SUFFIXES, FolderNotFoundError, ImageFiles, image_files, subfolders
from .patches import read_windows, require_split_of


class SceneDataset(HeldSamples):
    """Images with one label each, held in memory.

    Args:
        image: (N, C, H, W) float32 in the dataset's unit, finite.
        label: (N,) int64 labels.
        spec: spec of kind ``'scene'``.
        split: the split they come from; generators that have seen its test pixels are then refused when mixing.
        transforms: function of a sample, as in torchgeo.

    Raises:
        ValueError: if images, labels and spec do not match, or hold invalid values.
    """

    kind = 'scene'
    label: Tensor

    def __init__(
        self,
        image: Tensor,
        label: Tensor,
        spec: SampleSpec,
        split: LabelledPatchSplit | None = None,
        transforms: Transform | None = None,
    ) -> None:
        super().__init__(image, label, spec, split, transforms)

    @classmethod
    def from_scene(
        cls, scene: Scene, split: LabelledPatchSplit, part: PatchPart = 'train', transforms: Transform | None = None
    ) -> SceneDataset:
        """The labelled patches of one part of a split; pixels that are not measured hold the mean of the others.

        Raises:
            ValueError: for an unknown part, a split of another scene, or one without labelled patches.
        """
        if not isinstance(split, LabelledPatchSplit):
            raise ValueError(
                f'SceneDataset: a {type(split).__name__} holds no labelled patches; split with LabelledPatchSplitter'
            )
        require_split_of(scene, split, 'SceneDataset')
        corners, labels = split.patches(part)
        spec = scene.spec(split.classes, 'scene', (split.patch, split.patch))
        return cls(read_windows(scene, corners, split.patch), torch.from_numpy(labels), spec, split, transforms)


class SceneFolder(RealDataset):
    """Images in one folder per class, read on demand.

    Files may be GeoTIFF, PNG, JPEG, ENVI, NumPy, HDF5 or MATLAB, with any number of bands; all images must have the
    size and bands of the first. Pixels not measured in an image (nodata, NaN) get the mean of its other pixels. For
    training, read them into memory once with :meth:`SceneDataset.from_dataset`.

    Args:
        root: folder that holds a folder per class.
        classes: names of the class folders, in label order; if None, all folders in alphabetical order.
        split: sub-folder of the root that holds the class folders, such as ``'train'``; None for the root itself.
        bands, wavelengths, scale, unit, nodata, image_key, transforms: as for :class:`~hsiaug.datasets.PairFolder`.
        layout: position of the bands in arrays, ``'hwc'`` or ``'chw'``; if None, arrays that look like the latter are
            refused.

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
            raise FolderNotFoundError(f'SceneFolder: no folder {self.root}; it should hold a folder per class')
        found = [path.name for path in subfolders(self.root)]
        names = tuple(found) if classes is None else as_classes(classes, 'SceneFolder')
        if missing := [name for name in names if name not in found]:
            raise FolderNotFoundError(f'SceneFolder: no folders {missing} in {self.root}, which holds {found}')
        self.images = [(file, k) for k, name in enumerate(names) for file in image_files(self.root / name)]
        held = class_counts([k for _, k in self.images], len(names))
        if not names or (held == 0).any():
            empty = [name for name, count in zip(names, held, strict=True) if not count]
            raise ValueError(
                f'SceneFolder: no images with {IMAGE_SUFFIXES} in '
                + (f'the class folders {empty} of {self.root}; leave these out of classes' if names else str(self.root))
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
        file, label = self.images[index]
        return self._transformed({'image': torch.from_numpy(self.files.read(file)[0]), 'label': torch.tensor(label)})

    @property
    def labels(self) -> Tensor:
        """(N,) int64 labels."""
        return torch.tensor([label for _, label in self.images])

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) number of images per class."""
        return class_counts(self.labels, self.spec.num_classes)
