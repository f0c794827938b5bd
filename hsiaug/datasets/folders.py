"""Folders of image/mask pairs, as public segmentation data sets come."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchgeo.datasets import NonGeoDataset
from tqdm.auto import tqdm

from ..samples import Sample, SampleSpec
from ..scenes.files import LABEL_KEYS, SceneFileError, without_axis_of_one
from ..scenes.formats import open_content
from ..scenes.labels import without_class
from ..scenes.layout import Layout
from .image_files import IMAGE_SUFFIXES, SUFFIXES, FolderNotFoundError, ImageFiles, image_files
from .patches import IGNORE, plot_patch

IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img')
MASK_FOLDERS = ('masks', 'mask', 'labels', 'label', 'annotations')


class PairFolder(NonGeoDataset):
    """Images and masks in two folders, paired by file stem and read on demand.

    SegMunich and its like: ``img/`` or ``images/`` beside ``label/`` or ``masks/``. GeoTIFF, PNG, ENVI, NumPy, HDF5
    and MATLAB, images in JPEG too. All images have the size and bands of the first. Pixels that an image has not
    measured (nodata, NaN, transparent) hold the mean of its other pixels and are ignored in its mask. Negative mask
    values, NaN and a mask file's own nodata are ignored unless they are classes.

    Args:
        root: folder that holds both.
        classes: names of the K classes, in label order.
        split: ``root/<split>.txt`` with a stem or file name per line, or folders ``root/<split>/`` or
            ``images/<split>/`` and ``masks/<split>/``; None for all pairs.
        images: folder of the images below the root; found by its usual names if None.
        masks: folder of the masks below the root; found by its usual names if None.
        bands: indices of the bands to use, 0-based.
        wavelengths: band centres in nm of all bands of a file; the first file's own if None.
        label_map: value in a mask file to class index; None takes values 0..K-1 as they are.
        ignore: values in a mask file of pixels that do not count.
        scale: stored value times ``scale`` is the value in ``unit``; a file's own scale and offset if None.
        unit: physical unit.
        nodata: stored value that means "no measurement"; a file's own if None.
        image_key: variable of the image in ``.npz`` and ``.mat`` files that hold several.
        mask_key: variable of the mask, likewise.
        layout: ``'hwc'`` or ``'chw'``, where the bands are in arrays; decided by the first mask if None.
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
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self.root, self.mask_key, self.transforms = Path(root).expanduser(), mask_key, transforms
        self.raw_to_class = _raw_to_class(len(classes), label_map, ignore)
        self.explicit = {*(label_map or ()), *ignore}
        self.pairs = self._pairs(split, images, masks)
        self._counts: np.ndarray | None = None
        image, mask = self.pairs[0]
        self.files = ImageFiles(
            'PairFolder',
            image,
            bands,
            wavelengths,
            scale,
            nodata,
            image_key,
            layout,
            lambda: self._raw_mask(mask)[0].shape,
        )
        self.spec = SampleSpec(
            kind='segmentation',
            bands=len(self.files.bands),
            classes=tuple(classes),
            wavelengths=self.files.wavelengths,
            wavelengths_approximate=self.files.nominal,
            size=(self.files.shape[0], self.files.shape[1]),
            ignore_index=IGNORE,
            unit=unit,
        )

    # --- files ------------------------------------------------------------------------------------------------------

    def _pairs(self, split: str | None, images: str | None, masks: str | None) -> list[tuple[Path, Path]]:
        """Files of the pairs, in the order of their stems."""
        root, listing = self.root, self.root / f'{split}.txt'
        if split is not None and (root / split).is_dir():
            root, split = root / split, None
        folders = [_folder(root, images, IMAGE_FOLDERS, 'images'), _folder(root, masks, MASK_FOLDERS, 'masks')]
        if split is not None and all((folder / split).is_dir() for folder in folders):
            folders, split = [folder / split for folder in folders], None
        of_image, of_mask = (_by_stem(f, s) for f, s in zip(folders, (IMAGE_SUFFIXES, SUFFIXES), strict=True))
        stems = sorted(of_image.keys() | of_mask.keys())
        if split is not None:
            if not listing.is_file():
                raise FolderNotFoundError(
                    f'PairFolder: no split {split!r}: neither a list {listing}, nor folders {root / split} or '
                    f'{folders[0] / split} and {folders[1] / split}'
                )
            lines = [line.strip() for line in listing.read_text().splitlines()]
            stems = [
                Path(line).stem if Path(line).suffix.lower() in IMAGE_SUFFIXES else Path(line).name
                for line in lines
                if line
            ]
        for stem in stems:
            missing = [folder for folder, files in zip(folders, (of_image, of_mask), strict=True) if stem not in files]
            if missing:
                partner = of_image.get(stem) or of_mask.get(stem) or f'{stem!r} in {listing}'
                like = sorted({p.name for p in (of_image if missing[0] == folders[0] else of_mask).values()})[:3]
                raise ValueError(
                    f'PairFolder: {partner} has no file of that stem in {" and ".join(map(str, missing))}, which holds '
                    f'{like}; give both files of a pair the same stem'
                )
        if not stems:
            raise ValueError(
                f'PairFolder: no files with {IMAGE_SUFFIXES}, and no ENVI files, in {folders[0]}, or none named in '
                'the split'
            )
        return [(of_image[stem], of_mask[stem]) for stem in stems]

    def _raw_mask(self, file: Path) -> tuple[np.ndarray, np.ndarray, float | None]:
        """(H, W) values as stored, where they may be classes, and the file's nodata."""
        content = open_content(file, 'mask')
        try:
            raw = content.find(self.mask_key, LABEL_KEYS, (2,), 'mask', 'mask_key').read()
        except SceneFileError as error:
            hint = '; a mask holds one class index per pixel, in one band: colours and one-hot masks are not mapped'
            raise SceneFileError(f'{error}{hint}') from None
        raw = without_axis_of_one(raw, (2,))
        counted = np.ones(raw.shape, dtype=bool) if content.facts.measured is None else content.facts.measured
        return raw, counted, content.facts.nodata

    def _mask(self, file: Path) -> np.ndarray:
        """(H, W) int64 labels."""
        raw, counted, nodata = self._raw_mask(file)
        if raw.shape != self.spec.size:
            raise ValueError(f'PairFolder: {file} has {raw.shape}, its image {self.spec.size} rows and columns')
        values, place = np.unique(raw, return_inverse=True)
        absent = without_class(values, nodata, where=f'PairFolder: values of {file}')
        known, gone = values.tolist(), absent.tolist()
        labels = np.array(
            [self.raw_to_class.get(v, IGNORE if out else -1) for v, out in zip(known, gone, strict=True)],
            dtype=np.int64,
        )
        if (labels < 0).any():
            raise ValueError(
                f'PairFolder: {file} holds {values[labels < 0][:8].tolist()}, expected {sorted(self.raw_to_class)}; '
                'map such values to a class with label_map, or name them in ignore'
            )
        if nodata in self.raw_to_class and nodata not in self.explicit and nodata in values:
            warnings.warn(
                f'PairFolder: {nodata:g} is class {self.spec.classes[self.raw_to_class[int(nodata)]]!r} and the nodata '
                f'value of {file}, so its pixels count as that class; name it in ignore if they do not count, in '
                'label_map if they do',
                stacklevel=3,
            )
        return np.where(counted, labels[place.reshape(raw.shape)], IGNORE)

    # --- samples ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (C, H, W) float32 in the unit and ``mask`` (H, W) int64.

        Raises:
            ValueError: naming the file that does not fit the others or holds an unknown mask value.
        """
        image_file, mask_file = self.pairs[index]
        image, valid = self.files.read(image_file)
        mask = np.where(valid, self._mask(mask_file), IGNORE)
        sample: Sample = {'image': torch.from_numpy(image), 'mask': torch.from_numpy(mask)}
        return sample if self.transforms is None else self.transforms(sample)

    def class_pixels(self) -> np.ndarray:
        """(N, K) pixels per class of each pair. Reads every file once, without ``transforms``."""
        if self._counts is None:
            counts = np.zeros((len(self), self.spec.num_classes), dtype=np.int64)
            unmeasured = np.zeros(self.spec.num_classes, dtype=np.int64)
            for row, (image, mask) in enumerate(tqdm(self.pairs, desc='class fractions', unit='pair')):
                labels, valid = self._mask(mask), self.files.read(image)[1]
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
        """(N, K) float32 share of each class in the counting pixels of each mask; zeros where all are ignored."""
        counts = torch.from_numpy(self.class_pixels())
        return (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).to(torch.float32)

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) number of pixels per class."""
        return self.class_pixels().sum(axis=0)

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Draw one pair in false colour with its mask; see :func:`~hsiaug.datasets.patches.plot_patch`."""
        return plot_patch(sample, self.spec, show_titles, suptitle)


def _folder(root: Path, name: str | None, usual: Sequence[str], what: str) -> Path:
    """The folder of the images or masks."""
    found = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    names = [name] if name is not None else [entry for entry in found if entry.lower() in usual]
    if len(names) == 1 and (root / names[0]).is_dir():
        return root / names[0]
    if len(names) > 1:
        raise ValueError(f'PairFolder: {names} in {root} could all hold the {what}; name one with {what}=')
    raise FolderNotFoundError(
        f'PairFolder: no folder {name or " or ".join(usual)} for the {what} in {root}, which holds the folders '
        f'{found}; name it with {what}=, or give another root'
    )


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Readable files by stem."""
    files: dict[str, Path] = {}
    for path in image_files(folder, suffixes):
        if path.stem in files:
            raise ValueError(f'PairFolder: {files[path.stem]} and {path} have the same stem; keep one of them')
        files[path.stem] = path
    return files


def _raw_to_class(num_classes: int, label_map: Mapping[int, int] | None, ignore: Sequence[int]) -> dict[int, int]:
    """Value in a mask file to label."""
    mapping = {k: k for k in range(num_classes)} if label_map is None else dict(label_map)
    if wrong := {raw: k for raw, k in mapping.items() if not 0 <= k < num_classes}:
        raise ValueError(f'PairFolder: label_map must map to 0..{num_classes - 1}, the classes, found {wrong}')
    if label_map is not None and (both := sorted(set(label_map) & set(ignore))):
        raise ValueError(f'PairFolder: label_map and ignore both name {both}')
    return mapping | dict.fromkeys(ignore, IGNORE)
