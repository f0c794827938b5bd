"""A scene: a hyperspectral cube with its labels and metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ..samples import Kind, SampleSpec
from ..seen import SceneFingerprint
from ..settings import check_value
from .content import image_fingerprint, scene_content
from .labels import UNLABELLED, as_integers, require_names, without_class
from .layout import band_numbers
from .wavelengths import given_centres

ONE_CLASS = 'unlabelled'
"""Name of the single class of a scene used without its labels."""
_NUMBER = re.compile(r'\b[-+\d.e]+%?')
_CHUNK_VALUES = 8_000_000  # values of the cube in memory at once during a scan
_MAX_MISSING = 0.05  # share of missing values above which a band carries no information


class BadBandsError(ValueError):
    """A cube with bands that carry no information."""


@dataclass(eq=False, repr=False)
class Scene:
    """A hyperspectral scene.

    Scenes that come in tiles are stacked along the rows with their tile number in ``groups``
    (:meth:`from_tiles`); a spectral library is a scene one pixel wide (:meth:`from_spectra`).

    Args:
        name: short name, for figures and file names.
        cube: (H, W, C_file) array of any numeric dtype, which may be a memory map. Masked values count as NaN.
        labels: (H, W) integers; 0, negative or NaN where a pixel has no class; None if nothing is labelled.
        class_names: class id to name; ids without a name are called ``'class <id>'``.
        wavelengths: band centres in nm, one per band of the cube; micrometres are recognised.
        wavelengths_approximate: whether the centres are nominal, not the file's own.
        bands: indices of the bands in use; None for all.
        scale: stored value times ``scale`` plus ``offset`` is the value in ``unit``; one number, or one per band of the
            cube.
        offset: see ``scale``; one number, or one per band.
        unit: physical unit, such as ``'reflectance'`` or ``'radiance'``.
        nodata: stored value that means "no measurement".
        measured: (H, W) bool, False where nothing was measured, whatever the cube holds; None if its values tell.
        groups: (H, W) integers; a split by groups never separates pixels of one group (tile, flight line, field).
        tile_rows: number of rows per tile in a scene of stacked tiles, None for a single image; pixels of different
            tiles are not neighbours.
        coarse: the same area seen by a coarser sensor with the same bands, each pixel covering k × k of these;
            super-resolution learns from such pairs.

    Raises:
        ValueError: if shapes do not match.
    """

    name: str
    cube: np.ndarray
    labels: np.ndarray | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)
    wavelengths: np.ndarray | None = None
    wavelengths_approximate: bool = False
    bands: np.ndarray | None = None
    scale: float | np.ndarray = 1.0
    offset: float | np.ndarray = 0.0
    unit: str | None = None
    nodata: float | None = None
    measured: np.ndarray | None = None
    groups: np.ndarray | None = None
    tile_rows: int | None = None
    coarse: Scene | None = None

    def __post_init__(self) -> None:
        self.cube = as_array(self.cube, np.nan)
        if self.cube.dtype.kind not in 'biuf':
            raise ValueError(f'Scene {self.name!r}: cube must hold real numbers, found dtype {self.cube.dtype}')
        if self.cube.ndim != 3:
            raise ValueError(f'Scene {self.name!r}: cube must be (H, W, bands), found shape {self.cube.shape}')
        require_names(self.class_names, f'Scene {self.name!r}')
        for what in ('labels', 'groups', 'measured'):
            if (array := getattr(self, what)) is None:
                continue
            array = as_array(array, UNLABELLED)
            if array.shape != self.cube.shape[:2]:
                hint = ' (transposed?)' if array.shape == self.cube.shape[1::-1] else ''
                raise ValueError(
                    f'Scene {self.name!r}: {what} of shape {array.shape} do not fit a cube of '
                    f'{self.cube.shape[0]} x {self.cube.shape[1]} pixels{hint}; give one value per pixel'
                )
            if what == 'labels':
                array = as_integers(array, without_class(array, where=f'Scene {self.name!r}: labels'))
            elif what == 'measured' and array.dtype != bool:
                array = np.nan_to_num(array) != 0
            setattr(self, what, array)
        if self.tile_rows is not None and (self.tile_rows < 1 or self.cube.shape[0] % self.tile_rows):
            raise ValueError(
                f'Scene {self.name!r}: {self.cube.shape[0]} rows are not a whole number of tiles of '
                f'{self.tile_rows} rows'
            )
        channels = self.cube.shape[2]
        if self.wavelengths is not None and np.shape(self.wavelengths) != (channels,):
            raise ValueError(
                f'Scene {self.name!r}: {channels} bands but wavelengths of shape {np.shape(self.wavelengths)}; '
                'give one band centre in nm per band of the cube'
            )
        self.wavelengths = given_centres(self.wavelengths, f'Scene {self.name!r}')
        for what in ('scale', 'offset'):
            value = np.asarray(getattr(self, what), dtype=np.float64)
            if value.shape not in ((), (channels,)) or not np.isfinite(value).all():
                raise ValueError(
                    f'Scene {self.name!r}: {what} must be a finite number, or one for each of {channels} bands, found '
                    f'{getattr(self, what)}'
                )
            setattr(self, what, float(value) if value.ndim == 0 else value)
        if not np.all(self.scale):
            raise ValueError(f'Scene {self.name!r}: a scale of 0 makes all values one, found {self.scale}')
        if isinstance(self.nodata, np.generic | np.ndarray):  # a float64 might never equal its float32 counterpart
            self.nodata = self.nodata.item()
        if isinstance(self.nodata, bool) or not isinstance(self.nodata, int | float | None):
            raise ValueError(f'Scene {self.name!r}: nodata must be a stored value, a number, found {self.nodata!r}')
        if self.coarse is not None:
            ours, theirs = self.cube.shape, self.coarse.cube.shape
            factor = ours[0] // theirs[0]
            if self.tile_rows is not None or factor < 2 or ours != (factor * theirs[0], factor * theirs[1], theirs[2]):
                raise ValueError(
                    f'Scene {self.name!r}: the coarser image of the same area must have the same bands and sides that '
                    f'are a whole fraction of those of a single image, found {theirs} for {ours}'
                )
        self.bands = band_numbers(self.bands, channels, f'Scene {self.name!r}')

    def __repr__(self) -> str:
        """One line: sizes, bands, classes, values."""
        centres, said = self.band_wavelengths, [f'{self.shape[0]} x {self.shape[1]} pixels']
        among = '' if self.num_bands == self.cube.shape[2] else f' of {self.cube.shape[2]}'
        said.append(f'{self.num_bands}{among} bands')
        if centres is not None:
            said[-1] += f' {centres.min():.0f}-{centres.max():.0f} nm'
        if self.class_ids:
            classes = f'{count} classes' if (count := len(self.class_ids)) > 1 else '1 class'
            said.append(f'{classes} in {np.count_nonzero(self.flat_labels())} labelled pixels')
        else:
            said.append('no labels')
        said += [str(self.cube.dtype), *([] if self.unit is None else [self.unit])]
        return f'{type(self).__name__}({self.name!r}: {", ".join(said)})'

    @classmethod
    def from_tiles(
        cls,
        name: str,
        tiles: np.ndarray,
        labels: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        **kwargs: Any,
    ) -> Scene:
        """A scene of T tiles: ``tiles`` (T, h, w, C), ``labels`` (T, h, w), and a group number for each tile (T,).

        By default, each tile is a group; tiles that overlap or show the same place should share one.
        """
        tiles, labels = as_array(tiles, np.nan), None if labels is None else as_array(labels, UNLABELLED)
        if tiles.ndim != 4:
            raise ValueError(f'Scene {name!r}: tiles must be (T, h, w, bands), found shape {tiles.shape}')
        count, height, width, channels = tiles.shape
        if labels is not None:
            if labels.shape != tiles.shape[:3]:
                raise ValueError(f'Scene {name!r}: labels of shape {labels.shape} do not fit tiles of {tiles.shape}')
            labels = labels.reshape(count * height, width)
        groups = np.arange(count) if groups is None else np.asarray(groups)
        if groups.shape != (count,):
            raise ValueError(
                f'Scene {name!r}: groups of shape {groups.shape}; give one number for each of {count} tiles'
            )
        groups = np.repeat(groups, height * width).reshape(count * height, width)
        cube = tiles.reshape(count * height, width, channels)
        return cls(name, cube, labels, groups=groups, tile_rows=height, **kwargs)

    @classmethod
    def from_spectra(
        cls,
        name: str,
        spectra: np.ndarray,
        labels: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        **kwargs: Any,
    ) -> Scene:
        """A spectral library: ``spectra`` (N, C), ``labels`` (N,), ``groups`` (N,), as a scene of N x 1 pixels."""
        spectra = as_array(spectra, np.nan)
        if spectra.ndim != 2:
            raise ValueError(f'Scene {name!r}: spectra must be (N, bands), found shape {spectra.shape}')
        column: dict[str, Any] = {
            k: None if v is None else np.asarray(v).reshape(-1, 1) for k, v in (('labels', labels), ('groups', groups))
        }
        return cls(name, spectra[:, None, :], **column, **kwargs)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.cube.shape[0], self.cube.shape[1]

    @property
    def num_pixels(self) -> int:
        """H times W."""
        return self.cube.shape[0] * self.cube.shape[1]

    @property
    def num_bands(self) -> int:
        """Number of bands in use."""
        assert self.bands is not None
        return len(self.bands)

    @property
    def band_wavelengths(self) -> np.ndarray | None:
        """Centres in nm of the bands in use."""
        return None if self.wavelengths is None else self.wavelengths[self.bands]

    def class_name(self, class_id: int) -> str:
        """Name of a class id."""
        return str(self.class_names.get(int(class_id), f'class {class_id}'))

    def class_title(self, class_id: int) -> str:
        """A class id, and its name if it has one."""
        number, name = f'class {class_id}', self.class_name(class_id)
        return number if name == number else f'{number} ({name})'

    @cached_property
    def class_ids(self) -> tuple[int, ...]:
        """Ids that occur in the labels, ascending, without that of unlabelled pixels."""
        return () if self.labels is None else tuple(int(i) for i in np.unique(self.labels) if i != UNLABELLED)

    def spectra(self, pixels: np.ndarray) -> np.ndarray:
        """Spectra in the scene's unit.

        Args:
            pixels: (N,) flat pixel indices, or (H*W,) bool such as :attr:`valid`.

        Returns:
            (N, C) float32 over the bands in use.
        """
        pixels = np.flatnonzero(pixels) if np.asarray(pixels).dtype == bool else np.asarray(pixels, dtype=np.int64)
        rows, columns = np.divmod(pixels, self.shape[1])
        out = np.empty((len(rows), self.num_bands), dtype=np.float32)
        step = max(1, _CHUNK_VALUES // self.cube.shape[2])
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            out[part] = self.cube[rows[part], columns[part]][:, self.bands]
        for value, apply in ((self.scale, np.multiply), (self.offset, np.add)):
            apply(out, np.broadcast_to(np.float32(value), self.cube.shape[2])[self.bands], out=out)
        return out

    def flat_labels(self) -> np.ndarray:
        """(H*W,) int64 labels, unlabelled where the scene has none."""
        if self.labels is None:
            return np.full(self.num_pixels, UNLABELLED, dtype=np.int64)
        return self.labels.reshape(-1).astype(np.int64)

    def _row_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of rows of the cube, over the bands in use, with masks of missing values; each fits in memory."""
        step = max(1, _CHUNK_VALUES // (self.cube.shape[1] * self.cube.shape[2]))
        for start in range(0, self.cube.shape[0], step):
            block = np.asarray(self.cube[start : start + step])[:, :, self.bands]
            missing = np.zeros(block.shape, dtype=bool)
            if np.issubdtype(block.dtype, np.floating):
                missing |= ~np.isfinite(block)
            if self.nodata is not None:
                missing |= block == self.nodata
            if self.measured is not None:
                missing |= ~self.measured[start : start + step, :, None]
            yield block, missing

    @cached_property
    def valid(self) -> np.ndarray:
        """(H*W,) bool: pixels that are measured in every band in use. One pass over the cube."""
        if self.nodata is None and not np.issubdtype(self.cube.dtype, np.floating):
            measured = np.ones(self.shape, dtype=bool) if self.measured is None else self.measured
            return measured.reshape(-1).copy()
        return np.concatenate([~missing.any(axis=2).reshape(-1) for _, missing in self._row_blocks()])

    def bad_bands(self) -> dict[int, str]:
        """Bands in use that carry no information, with the reason. One pass over the cube.

        Values that are missing (NaN, infinite, nodata) make a band bad if they are many among the pixels that are
        measured in any band, so that pixels outside the swath do not count. Single missing pixels are left out of
        splits instead (:attr:`valid`).
        """
        assert self.bands is not None
        present = np.zeros(self.num_bands, dtype=np.int64)
        inside = 0
        low = np.full(self.num_bands, np.inf)
        high = np.full(self.num_bands, -np.inf)
        for block, missing in self._row_blocks():
            values, absent = (array.reshape(-1, self.num_bands) for array in (block, missing))
            present += (~absent).sum(axis=0)
            inside += int((~absent).any(axis=1).sum())
            low = np.minimum(low, np.where(absent, np.inf, values).min(axis=0))
            high = np.maximum(high, np.where(absent, -np.inf, values).max(axis=0))
        bad: dict[int, str] = {}
        for position, band in enumerate(self.bands.tolist()):
            missing_share = 1 - present[position] / max(inside, 1)
            if present[position] == 0:
                bad[band] = 'no data'
            elif missing_share > _MAX_MISSING:
                bad[band] = f'{missing_share:.0%} of the pixels missing'
            elif low[position] == high[position]:
                bad[band] = f'constant {low[position]:g}'
        return bad

    def checked(self, on_bad_bands: Literal['error', 'drop'] = 'error') -> Scene:
        """This scene without bad bands, or an error if there are any.

        Raises:
            BadBandsError: naming the bands and why, if ``on_bad_bands='error'``.
        """
        assert self.bands is not None
        check_value('Scene', 'on_bad_bands', on_bad_bands, Literal['error', 'drop'])
        bad = self.bad_bands()
        if not bad:
            return self
        listing = _listed(bad)
        if on_bad_bands == 'error' or len(bad) == self.num_bands:
            raise BadBandsError(
                f'Scene {self.name!r}: {len(bad)} of {self.num_bands} bands carry no information: {listing} '
                "(0-based). Leave them out with on_bad_bands='drop', or name the bands to use."
            )
        keep = np.array([b for b in self.bands.tolist() if b not in bad])
        return self._with(bands=keep)

    def as_one_class(self) -> Scene:
        """This scene with a single class for every measured pixel, for generators without labels."""
        labels = self.valid.reshape(self.shape).astype(np.uint8)
        return self._with(labels=labels, class_names={1: ONE_CLASS})

    @property
    def without_classes(self) -> bool:
        """Whether this is :meth:`as_one_class` of a scene; of another, a single class tells nothing apart."""
        return dict(self.class_names) == {1: ONE_CLASS}

    def _with(self, **changed: Any) -> Scene:
        values = {f: getattr(self, f) for f in self.__dataclass_fields__}
        return Scene(**{**values, **changed})

    @cached_property
    def fingerprint(self) -> SceneFingerprint:
        """16 hex digits that identify the image: see :func:`~hsiaug.scenes.content.image_fingerprint`."""
        return image_fingerprint(self.cube)

    @cached_property
    def content(self) -> dict[str, Any]:
        """What a result depends on, field by field, JSON-ready; see :func:`~hsiaug.scenes.content.scene_content`."""
        return scene_content(self)

    def spec(
        self,
        classes: Sequence[int] | None = None,
        kind: Kind = 'spectrum',
        size: tuple[int, int] | None = None,
        ignore_index: int | None = None,
    ) -> SampleSpec:
        """The spec of this scene's samples.

        Args:
            classes: class ids in label order; all that occur if None.
            kind: kind of the samples.
            size: ``(H, W)`` of images, None for spectra.
            ignore_index: value in masks of pixels that do not count.
        """
        wavelengths = self.band_wavelengths
        return SampleSpec(
            kind=kind,
            bands=self.num_bands,
            classes=tuple(self.class_name(i) for i in (self.class_ids if classes is None else classes)),
            wavelengths=None if wavelengths is None else tuple(float(w) for w in wavelengths),
            wavelengths_approximate=self.wavelengths_approximate,
            size=size,
            ignore_index=ignore_index,
            unit=self.unit,
        )


def as_array(values: Any, masked: float) -> np.ndarray:
    """A NumPy array as it is, memory maps included; masked values are filled with a value of their own."""
    if not np.ma.isMaskedArray(values):
        return values if isinstance(values, np.ndarray) else np.asarray(values)
    wide = np.result_type(values.dtype, np.float32 if np.isnan(masked) else np.min_scalar_type(masked))
    return np.ma.filled(values.astype(wide), masked)


def _listed(bad: Mapping[int, str]) -> str:
    """Bands grouped by fault: ``'3-7, 9 (constant 0), 12 (no data)'``."""
    kinds: dict[str, list[int]] = {}
    for band, why in bad.items():
        kinds.setdefault(_NUMBER.sub('', why), []).append(band)
    parts = []
    for bands in kinds.values():
        runs = np.split(np.array(bands), np.flatnonzero(np.diff(bands) > 1) + 1)
        spans = [f'{run[0]}' if len(run) == 1 else f'{run[0]}-{run[-1]}' for run in runs]
        reasons = list(dict.fromkeys(bad[band] for band in bands))
        more = '' if len(reasons) == 1 else ' and others'
        parts.append(f'{", ".join(spans)} ({reasons[0]}{more})')
    return ', '.join(parts)
