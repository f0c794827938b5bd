"""Pictures of samples: a single one, or a grid of real and synthetic ones."""

from __future__ import annotations

import colorsys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from ..samples import Sample, SampleSpec
from .contract.batches import as_tensor, is_array

REAL, SYNTHETIC = '#0072B2', '#D55E00'
_COMPOSITES = ((650.0, 550.0, 470.0), (860.0, 650.0, 550.0))  # natural colour; colour infrared, vegetation in red
_REACH_NM = 40.0  # largest distance of a band from its target
_IGNORED = (0.6, 0.6, 0.6)
# Distinct colours, neither grey nor those of real and synthetic; further hues never repeat.
_CLASS_COLOURS = (
    '#009E73', '#F0E442', '#CC79A7', '#56B4E9', '#000000', '#8c564b', '#9467bd', '#d62728', '#98df8a', '#0d0dff',
    '#0dff0d', '#ff0de7', '#ff0d86', '#6e6e0d', '#250d9e', '#0dffff', '#ffb686', '#0d9e0d',
)  # fmt: skip
_GAP = 4.0  # a gap of more usual steps than this means that bands were removed
_PIXELS = 50_000  # largest number of pixels per source for mean spectra
_LINES = _COLUMNS = 3

Batch = Mapping[str, Tensor]
Limits = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class BandAxis:
    """The spectral axis of figures: wavelengths if known, else band numbers."""

    spec: SampleSpec

    @property
    def x(self) -> np.ndarray:
        """(C,) place of each band."""
        return np.asarray(self.spec.wavelengths or range(self.spec.bands), dtype=float)

    def broken(self, values: np.ndarray) -> np.ndarray:
        """(C,) values for a line: ordered by wavelength, since detectors overlap, with NaN where bands were removed.

        Lines break at long steps between runs of bands, but not next to a single band, which would have no line.
        """
        order = np.argsort(self.x, kind='stable')
        steps = np.diff(self.x[order])
        long = steps > _GAP * np.median(steps) if len(steps) else np.zeros(0, dtype=bool)
        ends = np.pad(long, 1, constant_values=True)
        lone = ends[:-1] & ends[1:]
        return np.insert(values[order], np.flatnonzero(long & ~lone[:-1] & ~lone[1:]) + 1, np.nan)

    def label(self, axes: Axes) -> None:
        """Label the axis."""
        axes.set_xlabel(self.title, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[['top', 'right']].set_visible(False)

    @property
    def title(self) -> str:
        """Title of the axis."""
        nominal = ', nominal' if self.spec.wavelengths_approximate else ''
        return f'wavelength (nm{nominal})' if self.spec.wavelengths else 'band'


def class_colour(label: int) -> tuple[float, float, float]:
    """The colour of a class, the same in every figure."""
    if label < len(_CLASS_COLOURS):
        return to_rgb(_CLASS_COLOURS[label])
    return colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.6, 0.55 + 0.4 * (label % 2))


def rgb_bands(bands: int, wavelengths: Sequence[float] | None = None) -> tuple[int, int, int]:
    """Indices of the bands shown as red, green and blue.

    Natural colour (650, 550, 470 nm) if available, else colour infrared (860, 650, 550 nm), else three bands evenly
    spaced in wavelength, the longest in red; without wavelengths, evenly spaced band numbers.
    """
    if wavelengths is None:
        red, green, blue = ((bands - 1) * share // 6 for share in (5, 3, 1))
        return red, green, blue
    centres = np.asarray(wavelengths, dtype=float)
    low, high = float(centres.min()), float(centres.max())
    even = tuple(low + share * (high - low) / 6 for share in (5, 3, 1))
    for targets in (*_COMPOSITES, even):
        apart = np.abs(centres - np.array(targets)[:, None])
        red, green, blue = apart.argmin(axis=1).tolist()
        if targets is even or (apart.min(axis=1).max() <= _REACH_NM and len({red, green, blue}) == 3):
            break
    return red, green, blue


def stretch_limits(images: Tensor, wavelengths: Sequence[float] | None = None) -> Limits:
    """The 2nd and 98th percentile of red, green and blue over (..., C, H, W) images, as two (3,) arrays."""
    bands = rgb_bands(images.shape[-3], wavelengths)
    values = images.detach().cpu().float().movedim(-3, 0)[list(bands)].flatten(1).numpy()
    low, high = np.nanpercentile(np.where(np.isfinite(values), values, np.nan), [2, 98], axis=1)
    return low, high


def false_colour(image: Tensor, wavelengths: Sequence[float] | None = None, limits: Limits | None = None) -> np.ndarray:
    """An image (C, H, W) as a picture (H, W, 3) in 0..1, with 0 where it is not finite.

    Pictures to compare share :func:`stretch_limits`; the image's own are used if None.

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
    return table[np.where(spec.counted(labels), labels, -1)]


# --- one sample -----------------------------------------------------------------------------------------------------


def plot_sample(sample: Sample, spec: SampleSpec, show_titles: bool = True, suptitle: str | None = None) -> Figure:
    """Plot a sample, with its ``prediction`` if it has one.

    A spectrum is plotted as a line. An image is shown in false colour, both dates of a pair with the same stretch, with
    masks in class colours next to it; the title names labels.

    Args:
        sample: a sample in the sample contract.
        spec: spec of the sample.
        show_titles: whether to name classes and pictures.
        suptitle: title of the whole figure.

    Returns:
        a matplotlib figure without a window.
    """
    batch = {key: as_tensor(value)[None] for key, value in sample.items() if is_array(value)}
    images = _images('plot_sample:', batch, spec)
    targets = {key: _labels('plot_sample:', batch, key, images, spec) for key in (spec.target_key, 'prediction')}
    found = {key: target[0] for key, target in targets.items() if target is not None}
    title = ', predicted '.join(_called(int(label), spec) for label in found.values()) if 'label' in found else ''
    if spec.kind == 'spectrum':
        figure, bands = Figure(figsize=(6, 3), layout='constrained'), BandAxis(spec)
        axes = figure.subplots()
        axes.plot(bands.broken(bands.x), bands.broken(images[0, 0].numpy()), lw=1)
        bands.label(axes)
        axes.set_ylabel(spec.unit or 'value')
        axes.set_title(title if show_titles else '', parse_math=False)
        figure.suptitle(suptitle or '', parse_math=False)
        return figure
    limits = stretch_limits(images, spec.wavelengths)
    names = [f'date {k + 1}' if spec.dates > 1 else title or 'image' for k in range(spec.dates)]
    masks = found if spec.target_key == 'mask' else {}
    pictures = [false_colour(date, spec.wavelengths, limits) for date in images[0]]
    pictures += [mask_colour(mask, spec) for mask in masks.values()]
    figure = Figure(figsize=(2.6 * len(pictures) + (1.6 if masks else 0.4), 3), layout='constrained')
    panel: Any = figure.subfigures()
    grid = panel.subplots(1, len(pictures), squeeze=False)[0]
    for axes, name, picture in zip(grid, [*names, *masks], pictures, strict=True):
        axes.imshow(picture, interpolation='nearest')
        axes.set_axis_off()
        axes.set_title(name if show_titles else '', parse_math=False)
    if masks:
        _mask_legend(panel, list(masks.values()), spec)
    figure.suptitle(suptitle or '', parse_math=False)
    return figure


# --- real and synthetic ones ----------------------------------------------------------------------------------------


def preview_grid(
    real: Batch | None, synthetic: Batch, spec: SampleSpec, count: int = 6, suptitle: str | None = None
) -> Figure:
    """Plot real and synthetic samples.

    Images get a column per sample with a false-colour picture (both dates of a pair) and the mask or label, real above
    synthetic, with the same stretch, taken from the real ones; mean spectra per class are plotted below. Spectra get a
    panel per class with mean, standard deviation and a few synthetic spectra.

    Args:
        real: a batch in the sample contract, or None.
        synthetic: a batch in the sample contract.
        spec: spec of both.
        count: number of samples to show of each, and of the most frequent classes whose spectra are shown.
        suptitle: title of the whole figure.

    Returns:
        a matplotlib figure without a window.

    Raises:
        ValueError: if a batch is empty or does not match the spec.
    """
    if count < 1:
        raise ValueError(f'preview_grid: count must be at least 1, found {count}')
    batches = {'synthetic': synthetic} if real is None else {'real': real, 'synthetic': synthetic}
    sides = {}
    for name, batch in batches.items():
        images = _images(who := f'preview_grid: {name}', batch, spec)
        sides[name] = images, _labels(who, batch, spec.target_key, images, spec)
    curves = [curve for name, side in sides.items() for curve in _curves(name, *side)]
    classes = _frequent(curves, spec, count)
    panel_rows = -(-len(classes) // min(_COLUMNS, len(classes)))
    if spec.kind == 'spectrum':
        figure = Figure(figsize=(9.5, 2.5 * panel_rows + 0.7), layout='constrained')
        _draw_spectra(figure, curves, classes, spec)
    else:
        columns = min(count, max(len(images) for images, _ in sides.values()))
        rows = len(sides) * (spec.dates + (spec.target_key == 'mask'))
        heights = 1.5 * rows + 0.3, 2.3 * panel_rows + 0.3
        figure = Figure(figsize=(max(9.5, 1.5 * columns + 2.5), sum(heights)), layout='constrained')
        parts: Any = figure.subfigures(2, 1, height_ratios=heights)
        above, below = parts
        _draw_images(above, sides, spec, rows, columns)
        _draw_spectra(below, curves, classes, spec)
    if suptitle is not None:
        figure.suptitle(suptitle, parse_math=False)
    return figure


def _images(who: str, batch: Mapping[str, Any], spec: SampleSpec) -> Tensor:
    """Images (n, dates, C, ...) float32 of a batch, of any size."""
    image = as_tensor(batch['image']) if 'image' in batch else torch.empty(0)
    expected = spec.image_shape[:-2] + tuple(image.shape[-2:]) if spec.size else spec.image_shape
    if len(image) == 0 or tuple(image.shape[1:]) != expected:
        found = tuple(image.shape) if 'image' in batch else f'the keys {sorted(batch)}'
        raise ValueError(
            f'{who} samples of kind {spec.kind!r} need a non-empty image {("n", *spec.image_shape)}, found {found}'
        )
    return image.detach().cpu().float().reshape(len(image), spec.dates, *image.shape[2 if spec.dates > 1 else 1 :])


def _labels(who: str, batch: Mapping[str, Any], key: str, images: Tensor, spec: SampleSpec) -> Tensor | None:
    """Labels (n,) or masks (n, H, W) of a batch, if it has them."""
    if key not in batch:
        return None
    target, wanted = as_tensor(batch[key]), (len(images), *(images.shape[-2:] if spec.target_key == 'mask' else ()))
    if tuple(target.shape) not in (wanted, (len(images), 1, *wanted[1:])):
        raise ValueError(f'{who} {key} must be {wanted}, found {tuple(target.shape)}')
    return target.cpu().long().reshape(wanted)


# --- pictures -------------------------------------------------------------------------------------------------------


def _draw_images(
    figure: SubFigure, sides: Mapping[str, tuple[Tensor, Tensor | None]], spec: SampleSpec, rows: int, columns: int
) -> None:
    grid = iter(figure.subplots(rows, columns, squeeze=False))
    limits = stretch_limits(next(iter(sides.values()))[0][:columns], spec.wavelengths)
    for side, (images, target) in sides.items():
        for number, date in enumerate(images.unbind(1), 1):
            row = next(grid)
            row[0].set_ylabel(f'{side}\ndate {number}' if spec.dates > 1 else side)
            for axes, image in zip(row, date, strict=False):
                axes.imshow(false_colour(image, spec.wavelengths, limits), interpolation='nearest')
            if spec.target_key == 'label' and target is not None:
                for axes, label in zip(row, target.tolist(), strict=False):
                    name = textwrap.fill(_called(label, spec), 20)  # no wider than a column
                    axes.set_title(name, fontsize=8, parse_math=False)
        if spec.target_key == 'mask':
            row = next(grid)
            row[0].set_ylabel(f'{side}\nmask')
            for axes, mask in zip(row, () if target is None else target, strict=False):
                axes.imshow(mask_colour(mask, spec), interpolation='nearest')
    for axes in figure.axes:
        if axes.images:
            axes.set(xticks=[], yticks=[])
        else:
            axes.set_axis_off()
    if spec.target_key == 'mask':
        _mask_legend(figure, [masks for _, masks in sides.values() if masks is not None], spec)


def _called(label: int, spec: SampleSpec) -> str:
    """The name of a class."""
    return spec.classes[label] if 0 <= label < spec.num_classes else f'label {label}'


def _mask_legend(figure: SubFigure, masks: Sequence[Tensor], spec: SampleSpec) -> None:
    """The classes that occur."""
    found = np.unique([value for mask in masks for value in mask.unique().tolist()]).astype(np.int64)
    known = found[spec.counted(found)].tolist()
    handles = [Patch(color=class_colour(label), label=spec.classes[label]) for label in known]
    if len(known) < len(found):
        handles.append(Patch(color=_IGNORED, label='ignored'))
    _legend(figure, handles)


def _legend(figure: Figure | SubFigure, handles: Sequence[Patch | Line2D]) -> None:
    legend = figure.legend(handles=handles, loc='outside right upper', frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)


# --- spectra --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Curve:
    """Spectra (N, C) and labels (N,) of one source, or of one date of it; without labels, one unnamed class."""

    name: str
    source: str
    spectra: np.ndarray
    labels: np.ndarray | None
    style: str = '-'

    @property
    def colour(self) -> str:
        return REAL if self.source == 'real' else SYNTHETIC


def _curves(side: str, images: Tensor, target: Tensor | None) -> Iterator[_Curve]:
    spectra = images.flatten(3).movedim(2, -1) if images.ndim > 3 else images[:, :, None]  # (n, dates, pixels, C)
    count, dates, pixels, _ = spectra.shape
    # Random, since a fixed step could select the same columns of every patch.
    some = np.sort(np.random.default_rng(0).permutation(count * pixels)[:_PIXELS])
    # Every pixel of a scene has the label of its image.
    labels = None if target is None else target.reshape(count, -1).expand(count, pixels).flatten()[some].numpy()
    for date in range(dates):
        name = f'{side}, date {date + 1}' if dates > 1 else side
        yield _Curve(name, side, spectra[:, date].flatten(0, 1)[some].numpy(), labels, '--' if date else '-')


def _frequent(curves: Sequence[_Curve], spec: SampleSpec, count: int) -> list[int | None]:
    """The most frequent classes of the first source, in the order of the spec; [None] if a source has no labels."""
    counts = np.zeros((2, spec.num_classes), dtype=np.int64)  # of the first source, and of all
    for curve in curves:
        if curve.labels is None:
            return [None]
        found = curve.labels[spec.counted(curve.labels)]
        counts[int(curve.source != curves[0].source) :] += np.bincount(found, minlength=spec.num_classes)
    order = np.lexsort((-counts[1], -counts[0]))[:count].tolist()
    return [*sorted(label for label in order if counts[1][label])] or [None]


def _draw_spectra(
    figure: Figure | SubFigure, curves: Sequence[_Curve], classes: Sequence[int | None], spec: SampleSpec
) -> None:
    columns = min(_COLUMNS, len(classes))
    grid = figure.subplots(-(-len(classes) // columns), columns, squeeze=False).reshape(-1)
    for axes, label in zip(grid, classes, strict=False):
        _draw_class(axes, curves, label, spec)
    for axes in grid[len(classes) :]:
        axes.set_axis_off()
    figure.supxlabel(BandAxis(spec).title, fontsize=9)
    figure.supylabel(spec.unit or 'value', fontsize=9)
    styles = [Line2D([], [], color=c.colour, ls=c.style, lw=1.4, label=f'{c.name}\nmean ± std') for c in curves]
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
        mean, std = bands.broken(mine.mean(axis=0)), bands.broken(mine.std(axis=0))
        axes.fill_between(centres, mean - std, mean + std, color=curve.colour, alpha=0.18, lw=0)
        if spec.kind == 'spectrum' and curve.source == 'synthetic':
            for spectrum in mine[:_LINES]:
                axes.plot(centres, bands.broken(spectrum), color=curve.colour, lw=0.5, alpha=0.7)
        axes.plot(centres, mean, color=curve.colour, ls=curve.style, lw=1.4)
    axes.set_title('all samples' if label is None else spec.classes[label], fontsize=9, parse_math=False)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis='both', nbins=5)
    axes.spines[['top', 'right']].set_visible(False)
