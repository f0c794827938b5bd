"""A grid of real and synthetic samples side by side: false colour, masks and spectra."""

from __future__ import annotations

import colorsys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from ..samples import SampleSpec

REAL, SYNTHETIC = '#0072B2', '#D55E00'
_COMPOSITES = ((650.0, 550.0, 470.0), (860.0, 650.0, 550.0))  # natural colour; colour infrared, vegetation in red
_REACH_NM = 40.0  # a band this far from a target still stands for it
_IGNORED = (0.6, 0.6, 0.6)
# Far apart, and neither grey nor the colours of real and synthetic; then hues that never repeat.
_CLASS_COLOURS = (
    '#009E73', '#F0E442', '#CC79A7', '#56B4E9', '#000000', '#8c564b', '#9467bd', '#d62728', '#98df8a', '#0d0dff',
    '#0dff0d', '#ff0de7', '#ff0d86', '#6e6e0d', '#250d9e', '#0dffff', '#ffb686', '#0d9e0d',
)  # fmt: skip
_GAP = 4.0  # bands farther apart than this many usual steps have removed ones between them
_PIXELS = 50_000  # spectra of at most so many pixels of a source make its means
_LINES = 3

Batch = Mapping[str, Tensor]
Limits = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class BandAxis:
    """The spectral axis of figures: wavelengths where they are known, and band numbers elsewhere.

    Args:
        spec: of the samples that are drawn.
    """

    spec: SampleSpec

    @property
    def x(self) -> np.ndarray:
        """(C,) place of each band."""
        return np.asarray(self.spec.wavelengths or range(self.spec.bands), dtype=float)

    def broken(self, values: np.ndarray) -> np.ndarray:
        """(C,) values as a line is drawn: by wavelength, since detectors overlap, and NaN where bands were removed.

        Lines break at long steps between runs of bands, not beside a lone band, which would have no line at all.
        """
        order = np.argsort(self.x, kind='stable')
        steps = np.diff(self.x[order])
        long = steps > _GAP * np.median(steps) if len(steps) else np.zeros(0, dtype=bool)
        ends = np.pad(long, 1, constant_values=True)
        lone = ends[:-1] & ends[1:]
        return np.insert(values[order], np.flatnonzero(long & ~lone[:-1] & ~lone[1:]) + 1, np.nan)

    def label(self, axes: Axes) -> None:
        """Write what stands along the axis."""
        nominal = ', nominal' if self.spec.wavelengths_approximate else ''
        axes.set_xlabel(f'wavelength (nm{nominal})' if self.spec.wavelengths else 'band', fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[['top', 'right']].set_visible(False)


def class_colour(label: int) -> tuple[float, float, float]:
    """The colour of a class, the same in every figure."""
    if label < len(_CLASS_COLOURS):
        return to_rgb(_CLASS_COLOURS[label])
    return colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.6, 0.55 + 0.4 * (label % 2))


def rgb_bands(bands: int, wavelengths: Sequence[float] | None = None) -> tuple[int, int, int]:
    """Which bands stand for red, green and blue.

    Natural colour (650, 550, 470 nm) where the bands reach it, else colour infrared (860, 650, 550 nm), else three
    bands spread evenly over the wavelengths, the longest in red; the same over band numbers where none are known.

    Args:
        bands: number of bands C.
        wavelengths: (C,) band centres in nm.
    """
    if wavelengths is None:
        red, green, blue = ((bands - 1) * share // 6 for share in (5, 3, 1))
        return red, green, blue
    centres = np.asarray(wavelengths, dtype=float)
    low, high = float(centres.min()), float(centres.max())
    spread = tuple(low + share * (high - low) / 6 for share in (5, 3, 1))
    for targets in (*_COMPOSITES, spread):
        apart = np.abs(centres - np.array(targets)[:, None])
        red, green, blue = apart.argmin(axis=1).tolist()
        if targets is spread or (apart.min(axis=1).max() <= _REACH_NM and len({red, green, blue}) == 3):
            break
    return red, green, blue


def stretch_limits(images: Tensor, wavelengths: Sequence[float] | None = None) -> Limits:
    """The 2nd and 98th percentile of red, green and blue over (..., C, H, W) images, as two (3,) arrays."""
    bands = rgb_bands(images.shape[-3], wavelengths)
    values = images.detach().cpu().float().movedim(-3, 0)[list(bands)].flatten(1).numpy()
    low, high = np.nanpercentile(np.where(np.isfinite(values), values, np.nan), [2, 98], axis=1)
    return low, high


def false_colour(image: Tensor, wavelengths: Sequence[float] | None = None, limits: Limits | None = None) -> np.ndarray:
    """An image as a picture.

    Args:
        image: (C, H, W).
        wavelengths: (C,) band centres in nm; see :func:`rgb_bands`.
        limits: of :func:`stretch_limits`, shared by pictures to compare; the image's own if None.

    Returns:
        (H, W, 3) in 0..1, with 0 where the image is not finite.

    Raises:
        ValueError: if the image isn't (C, H, W) with a wavelength per band.
    """
    if image.ndim != 3 or (wavelengths is not None and len(wavelengths) != len(image)):
        found = '' if wavelengths is None else f' with {len(wavelengths)} wavelengths'
        raise ValueError(f'false_colour: image must be (C, H, W) with C wavelengths, found {tuple(image.shape)}{found}')
    low, high = stretch_limits(image, wavelengths) if limits is None else limits
    picture = image[list(rgb_bands(len(image), wavelengths))].detach().cpu().float().movedim(0, -1).numpy()
    stretched = (picture - low) / np.maximum(high - low, 1e-12)
    return np.nan_to_num(stretched, nan=0.0, posinf=0.0, neginf=0.0).clip(0, 1)


def mask_colour(mask: Tensor, spec: SampleSpec) -> np.ndarray:
    """A (H, W) mask as an (H, W, 3) picture in class colours; grey where it is ignored or no class."""
    table = np.array([*(class_colour(label) for label in range(spec.num_classes)), _IGNORED])
    labels = mask.cpu().long().numpy()
    return table[np.where(_known(labels, spec), labels, -1)]


def _known(labels: np.ndarray, spec: SampleSpec) -> np.ndarray:
    """Which labels are a class that counts."""
    return (labels >= 0) & (labels < spec.num_classes) & (labels != spec.ignore_index)


def preview_grid(
    real: Batch | None, synthetic: Batch, spec: SampleSpec, count: int = 6, suptitle: str | None = None
) -> Figure:
    """Draw real and synthetic samples.

    Images: a column per sample with its false colour (both dates of a pair) and its mask or label, real above
    synthetic, under one stretch that the real ones set; below them mean spectra per class. Spectra: a panel per class
    with mean, standard deviation and a few synthetic lines.

    Args:
        real: a batch in the sample contract, or None.
        synthetic: a batch in the sample contract.
        spec: what both hold.
        count: samples shown of each, and classes whose spectra are shown, the most frequent ones.
        suptitle: title of the whole figure.

    Returns:
        a matplotlib figure, registered with no window.

    Raises:
        ValueError: if a batch is empty or doesn't fit the spec.
    """
    if count < 1:
        raise ValueError(f'preview_grid: count must be at least 1, found {count}')
    batches = {'synthetic': synthetic} if real is None else {'real': real, 'synthetic': synthetic}
    for name, batch in batches.items():
        _check(name, batch, spec)
    curves = [curve for name, batch in batches.items() for curve in _curves(name, batch, spec)]
    classes = _frequent(curves, spec, count)
    panel_rows = -(-len(classes) // _columns(len(classes)))
    if spec.kind == 'spectrum':
        figure = Figure(figsize=(9.5, 2.5 * panel_rows + 0.7), layout='constrained')
        _draw_spectra(figure, curves, classes, spec)
    else:
        columns = min(count, max(len(batch['image']) for batch in batches.values()))
        rows = len(batches) * (1 + (spec.kind == 'segmentation') + 2 * (spec.kind == 'change'))
        heights = 1.5 * rows + 0.3, 2.3 * panel_rows + 0.3
        figure = Figure(figsize=(max(9.5, 1.5 * columns + 2.5), sum(heights)), layout='constrained')
        parts: Any = figure.subfigures(2, 1, height_ratios=heights)
        above, below = parts
        _draw_images(above, batches, spec, rows, columns)
        _draw_spectra(below, curves, classes, spec)
    if suptitle is not None:
        figure.suptitle(suptitle, parse_math=False)
    return figure


def _check(name: str, batch: Batch, spec: SampleSpec) -> None:
    expected = spec.image_shape
    if 'image' not in batch or len(batch['image']) == 0 or tuple(batch['image'].shape[1:]) != expected:
        found = tuple(batch['image'].shape) if 'image' in batch else f'the keys {sorted(batch)}'
        raise ValueError(
            f'preview_grid: {name} samples of kind {spec.kind!r} need a non-empty image {("n", *expected)}, '
            f'found {found}'
        )
    pixels = () if spec.kind == 'scene' else spec.size or ()
    target, wanted = _target(batch, spec), (len(batch['image']), *pixels)
    if target is not None and tuple(target.shape) != wanted:
        what = 'mask' if pixels else 'label'
        raise ValueError(f'preview_grid: {name} {what} must be {wanted}, found {tuple(target.shape)}')


def _target(batch: Batch, spec: SampleSpec) -> Tensor | None:
    """``label`` (n,) or ``mask`` (n, H, W)."""
    if spec.kind in ('spectrum', 'scene'):
        return batch.get('label')
    mask = batch.get('mask')
    return mask[:, 0] if mask is not None and mask.ndim == 4 and mask.shape[1] == 1 else mask


# --- pictures -------------------------------------------------------------------------------------------------------


def _draw_images(figure: SubFigure, batches: Mapping[str, Batch], spec: SampleSpec, rows: int, columns: int) -> None:
    grid = iter(figure.subplots(rows, columns, squeeze=False))
    first = next(iter(batches.values()))['image']
    limits = stretch_limits(first[:columns], spec.wavelengths)
    for name, batch in batches.items():
        target = _target(batch, spec)
        images = batch['image'] if spec.kind == 'change' else batch['image'][:, None]
        for date in range(images.shape[1]):
            row = next(grid)
            row[0].set_ylabel(f'{name}\ndate {date + 1}' if spec.kind == 'change' else name)
            for axes, image in zip(row, images[:, date], strict=False):
                axes.imshow(false_colour(image, spec.wavelengths, limits), interpolation='nearest')
            if spec.kind == 'scene' and target is not None:
                for axes, label in zip(row, target.tolist(), strict=False):
                    axes.set_title(_class_name(label, spec), fontsize=8, parse_math=False)
        if spec.kind != 'scene':
            row = next(grid)
            row[0].set_ylabel(f'{name}\nmask')
            for axes, mask in zip(row, () if target is None else target, strict=False):
                axes.imshow(mask_colour(mask, spec), interpolation='nearest')
    for axes in figure.axes:
        if axes.images:
            axes.set(xticks=[], yticks=[])
        else:
            axes.set_axis_off()
    if spec.kind != 'scene':
        _mask_legend(figure, [t for b in batches.values() if (t := _target(b, spec)) is not None], spec)


def _mask_legend(figure: SubFigure, masks: Sequence[Tensor], spec: SampleSpec) -> None:
    """The classes that occur."""
    found = np.unique([value for mask in masks for value in mask.unique().tolist()]).astype(np.int64)
    known = found[_known(found, spec)].tolist()
    handles = [Patch(color=class_colour(label), label=spec.classes[label]) for label in known]
    if len(known) < len(found):
        handles.append(Patch(color=_IGNORED, label='ignored'))
    _legend(figure, handles)


def _legend(figure: Figure | SubFigure, handles: Sequence[Patch | Line2D]) -> None:
    legend = figure.legend(handles=handles, loc='outside right upper', frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _class_name(label: int, spec: SampleSpec) -> str:
    name = spec.classes[label] if 0 <= label < spec.num_classes else f'label {label}'
    return textwrap.fill(name, 20)  # no wider than a column


# --- spectra --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Curve:
    """Spectra (N, C) and labels (N,) of one source, or of one date of it; no labels stand for one nameless class."""

    name: str
    source: str
    dashed: bool
    spectra: np.ndarray
    labels: np.ndarray | None


def _curves(name: str, batch: Batch, spec: SampleSpec) -> Iterator[_Curve]:
    target, image = _target(batch, spec), batch['image'].detach().cpu().float()
    labels = None if target is None else target.cpu().long()
    if spec.kind == 'spectrum':
        yield _Curve(name, name, False, image.numpy(), None if labels is None else labels.numpy())
        return
    images = image if spec.kind == 'change' else image[:, None]
    total = images[:, 0, 0].numel()
    # At random, since a fixed step could meet the same columns of every patch.
    some = np.random.default_rng(0).permutation(total)[:_PIXELS]
    if labels is not None:
        if spec.kind == 'scene':  # every pixel has its picture's label
            labels = labels[:, None, None].expand(images[:, 0, 0].shape)
        labels = labels.flatten()[some]
    for date in range(images.shape[1]):
        title = f'{name}, date {date + 1}' if spec.kind == 'change' else name
        pixels = images[:, date].movedim(1, -1).flatten(0, 2)[some]
        yield _Curve(title, name, date == 1, pixels.numpy(), None if labels is None else labels.numpy())


def _frequent(curves: Sequence[_Curve], spec: SampleSpec, count: int) -> list[int | None]:
    """The most frequent classes of the first source, in the spec's order; [None] where any source has no labels."""
    counts = np.zeros((2, spec.num_classes), dtype=np.int64)  # of the first source, and of all
    for curve in curves:
        if curve.labels is None:
            return [None]
        found = curve.labels[_known(curve.labels, spec)]
        counts[int(curve.source != curves[0].source) :] += np.bincount(found, minlength=spec.num_classes)
    order = np.lexsort((-counts[1], -counts[0]))[:count].tolist()
    return [*sorted(label for label in order if counts[1][label])] or [None]


def _columns(panels: int) -> int:
    return min(3, panels)


def _draw_spectra(
    figure: Figure | SubFigure, curves: Sequence[_Curve], classes: Sequence[int | None], spec: SampleSpec
) -> None:
    columns = _columns(len(classes))
    grid = figure.subplots(-(-len(classes) // columns), columns, squeeze=False).reshape(-1)
    for axes, label in zip(grid, classes, strict=False):
        _draw_class(axes, curves, label, spec)
    for axes in grid[len(classes) :]:
        axes.set_axis_off()
    nominal = ', nominal' if spec.wavelengths_approximate else ''
    figure.supxlabel(f'wavelength (nm{nominal})' if spec.wavelengths else 'band', fontsize=9)
    figure.supylabel(spec.unit or 'value', fontsize=9)
    styles = [Line2D([], [], color=_colour(c), ls=_dash(c), lw=1.4, label=f'{c.name}\nmean ± std') for c in curves]
    if spec.kind == 'spectrum':
        styles.append(Line2D([], [], color=SYNTHETIC, lw=0.5, alpha=0.7, label='synthetic\nsamples'))
    _legend(figure, styles)


def _draw_class(axes: Axes, curves: Sequence[_Curve], label: int | None, spec: SampleSpec) -> None:
    bands = BandAxis(spec)
    centres = bands.broken(bands.x)
    for curve in curves:
        mine = curve.spectra if label is None or curve.labels is None else curve.spectra[curve.labels == label]
        if len(mine) == 0:
            continue
        mean, spread = bands.broken(mine.mean(axis=0)), bands.broken(mine.std(axis=0))
        axes.fill_between(centres, mean - spread, mean + spread, color=_colour(curve), alpha=0.18, lw=0)
        if spec.kind == 'spectrum' and curve.source == 'synthetic':
            for spectrum in mine[:_LINES]:
                axes.plot(centres, bands.broken(spectrum), color=_colour(curve), lw=0.5, alpha=0.7)
        axes.plot(centres, mean, color=_colour(curve), ls=_dash(curve), lw=1.4)
    axes.set_title('all samples' if label is None else spec.classes[label], fontsize=9, parse_math=False)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis='both', nbins=5)
    axes.spines[['top', 'right']].set_visible(False)


def _colour(curve: _Curve) -> str:
    return REAL if curve.source == 'real' else SYNTHETIC


def _dash(curve: _Curve) -> str:
    return '--' if curve.dashed else '-'
