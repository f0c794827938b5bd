"""Images with one label each: patches of a scene, and folders with a sub-folder per class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from ..samples import Sample, SampleSpec, class_counts
from ..scenes import Scene
from ..scenes.labelled_patches import LabelledPatchSplit
from ..scenes.layout import Layout
from ..scenes.patches import PatchPart
from .image_files import IMAGE_SUFFIXES, FolderNotFoundError, ImageFiles, image_files
from .patches import HeldSamples, read_windows, require_split_of
from .preview import false_colour


class SceneDataset(HeldSamples):
    """Images with one label each, held in memory.

    Args:
        image: (N, C, H, W) float32 in the dataset's unit, finite.
        label: (N,) int64 labels.
        spec: what they are; its kind is ``'scene'``.
        split: the split that they come from; a generator that saw its test pixels is then refused by mixing.
        transforms: function of a sample, as in torchgeo.

    Raises:
        ValueError: if images, labels and spec do not fit together, or hold values that they must not.
    """

    keys, kind = ('image', 'label'), 'scene'

    def __init__(
        self,
        image: Tensor,
        label: Tensor,
        spec: SampleSpec,
        split: LabelledPatchSplit | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        require_labelled(image, label, spec, 'SceneDataset')
        self.image, self.label, self.spec, self.split, self.transforms = image, label, spec, split, transforms

    @classmethod
    def from_scene(
        cls,
        scene: Scene,
        split: LabelledPatchSplit,
        part: PatchPart = 'train',
        transforms: Callable[[Sample], Sample] | None = None,
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

    def subset(self, rows: Sequence[int] | Tensor) -> SceneDataset:
        """A dataset of some of the samples, for example a fold."""
        return SceneDataset(**self.batch(rows), spec=self.spec, split=self.split, transforms=self.transforms)

    @property
    def labels(self) -> Tensor:
        """(N,) int64 labels."""
        return self.label

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) number of samples per class."""
        return class_counts(self.label, self.spec.num_classes)

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Draw one image in false colour; see :func:`plot_scene`."""
        return plot_scene(sample, self.spec, show_titles, suptitle)

    def __str__(self) -> str:
        """Size and class counts."""
        counts = dict(zip(self.spec.classes, self.class_counts.tolist(), strict=True))
        return f'{super().__str__()}\n    bands: {self.spec.bands}, size: {self.spec.size}\n    classes: {counts}'


class SceneFolder(NonGeoDataset):
    """Images in one folder per class, read on demand.

    GeoTIFF, PNG, JPEG, ENVI, NumPy, HDF5 and MATLAB, of any number of bands; all images have the size and bands
    of the first. Pixels that an image has not measured (nodata, NaN) hold the mean of its other pixels. For training
    read them into memory once: :meth:`SceneDataset.from_dataset`.

    Args:
        root: folder that holds a folder per class.
        classes: names of the class folders, in label order; all folders in the order of their names if None.
        split: sub-folder of the root that holds the class folders, such as ``'train'``; None for the root itself.
        bands: indices of the bands to use, 0-based.
        wavelengths: band centres in nm of all bands of a file; the first file's own if None.
        scale: stored value times ``scale`` is the value in ``unit``; a file's own scale and offset if None.
        unit: physical unit.
        nodata: stored value that means "no measurement"; a file's own if None.
        image_key: variable of the image in ``.npz`` and ``.mat`` files that hold several.
        layout: ``'hwc'`` or ``'chw'``, where the bands are in arrays; the latter is refused if None and likely.
        transforms: function of a sample, as in torchgeo.

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
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self.root, self.transforms = Path(root).expanduser() / (split or ''), transforms
        if not self.root.is_dir():
            raise FolderNotFoundError(f'SceneFolder: no folder {self.root}; it should hold a folder per class')
        found = sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith('.'))
        names = tuple(found if classes is None else classes)
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
        self.spec = SampleSpec(
            kind='scene',
            bands=len(self.files.bands),
            classes=names,
            wavelengths=self.files.wavelengths,
            wavelengths_approximate=self.files.nominal,
            size=(self.files.shape[0], self.files.shape[1]),
            unit=unit,
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (C, H, W) float32 in the unit and ``label`` () int64.

        Raises:
            ValueError: naming the file that does not fit the others.
        """
        file, label = self.images[index]
        sample: Sample = {'image': torch.from_numpy(self.files.read(file)[0]), 'label': torch.tensor(label)}
        return sample if self.transforms is None else self.transforms(sample)

    @property
    def labels(self) -> Tensor:
        """(N,) int64 labels."""
        return torch.tensor([label for _, label in self.images])

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) number of images per class."""
        return class_counts(self.labels, self.spec.num_classes)

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Draw one image in false colour; see :func:`plot_scene`."""
        return plot_scene(sample, self.spec, show_titles, suptitle)


def require_labelled(image: Tensor, label: Tensor, spec: SampleSpec, who: str) -> None:
    """Check images and labels against a spec.

    Args:
        image: (N, C, H, W).
        label: (N,).
        spec: of kind ``'scene'``.
        who: whose mistake it is, for the message.

    Raises:
        ValueError: naming what was found and expected.
    """
    shape = (spec.bands, *(spec.size or ()))
    if spec.kind != 'scene' or tuple(image.shape[1:]) != shape or label.shape != image.shape[:1]:
        raise ValueError(
            f"{who}: images {('N', *shape)} with labels (N,) of kind 'scene' are needed, found {tuple(image.shape)} "
            f'with {tuple(label.shape)} of kind {spec.kind!r}'
        )
    if image.dtype != torch.float32 or label.dtype != torch.int64:
        raise ValueError(f'{who}: image must be float32 and label int64, found {image.dtype} and {label.dtype}')
    finite = torch.isfinite(image).flatten(1).all(dim=1)
    if not finite.all():
        raise ValueError(
            f'{who}: {int((~finite).sum())} of {len(image)} images hold NaN or infinite values, the first is image '
            f'{int(finite.int().argmin())}; fill them'
        )
    if len(label) and not 0 <= int(label.min()) <= int(label.max()) < spec.num_classes:
        raise ValueError(
            f'{who}: labels must lie in [0, {spec.num_classes}), found [{int(label.min())}, {int(label.max())}]'
        )


def plot_scene(sample: Sample, spec: SampleSpec, show_titles: bool = True, suptitle: str | None = None) -> Figure:
    """Draw an image in false colour, its class, and a ``prediction`` where the sample has one.

    Args:
        sample: of kind ``'scene'``.
        spec: what it is.
        show_titles: whether to name the classes.
        suptitle: title of the whole figure.

    Returns:
        a matplotlib figure, registered with no window.
    """
    figure = Figure(figsize=(3, 3.2), layout='constrained')
    axes = figure.subplots()
    axes.imshow(false_colour(sample['image'], spec.wavelengths), interpolation='nearest')
    axes.set_axis_off()
    if show_titles:
        title = spec.classes[int(sample['label'])]
        if 'prediction' in sample:
            title += f', predicted {spec.classes[int(sample["prediction"])]}'
        axes.set_title(title)
    if suptitle is not None:
        figure.suptitle(suptitle)
    return figure
