import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from torch import Tensor

from hsiaug.datasets.preview import (
    REAL,
    SYNTHETIC,
    BandAxis,
    class_colour,
    false_colour,
    mask_colour,
    plot_sample,
    preview_grid,
    rgb_bands,
    stretch_limits,
)
from hsiaug.samples import Kind, SampleSpec

CLASSES = ('grass', 'a $x$ roof', 'water')
WAVELENGTHS = (470.0, 550.0, 650.0, 860.0, 1600.0)
SIDE = 8


def spec_of(kind: Kind, **changes: object) -> SampleSpec:
    size = None if kind == 'spectrum' else (SIDE, SIDE)
    classes = ('no change', 'change') if kind == 'change' else CLASSES
    fields = {'bands': 5, 'classes': classes, 'wavelengths': WAVELENGTHS, 'size': size, 'unit': 'reflectance'}
    return SampleSpec(kind, **{**fields, **changes})  # type: ignore[arg-type]


def batch_of(kind: Kind, n: int, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    pixels = () if kind == 'spectrum' else (SIDE, SIDE)
    dates = (2,) if kind == 'change' else ()
    image = torch.rand(n, *dates, 5, *pixels, generator=rng) + 0.1
    if kind in ('spectrum', 'scene'):
        return {'image': image, 'label': torch.arange(n) % 3}
    lead, classes = ((n, 1), 2) if kind == 'change' else ((n,), 3)
    return {'image': image, 'mask': torch.randint(0, classes, (*lead, *pixels), generator=rng)}


def drawn(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=60)
    return buffer.getvalue()


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def panels(figure: Figure) -> Iterator[Axes]:
    return (axes for axes in figure.axes if axes.lines)


def legend_names(figure: Figure) -> list[str]:
    return [text.get_text() for part in (figure, *figure.subfigs) for one in part.legends for text in one.get_texts()]


# --- false colour ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('wavelengths', 'bands'),
    [
        (WAVELENGTHS, (2, 1, 0)),
        ((1600.0, 655.0, 480.0, 545.0, 2200.0), (1, 3, 2)),  # in no order
        ((545.0, 640.0, 700.0, 870.0), (3, 1, 0)),  # no blue: vegetation in red
        ((545.0, 700.0, 1600.0, 2200.0), (3, 2, 1)),  # neither: spread, the longest in red
        ((900.0, 1300.0, 1700.0, 2100.0, 2500.0), (3, 2, 1)),
        ((500.0, 560.0, 610.0, 640.0), (3, 1, 0)),
        ((600.0,), (0, 0, 0)),
    ],
)
def test_bands_for_red_green_and_blue(wavelengths: tuple[float, ...], bands: tuple[int, int, int]) -> None:
    assert rgb_bands(len(wavelengths), wavelengths) == bands
    image = torch.stack([torch.linspace(0, 1, 101).roll(k).reshape(1, 101) for k in range(len(wavelengths))])
    low, high = stretch_limits(image)
    picture = false_colour(image, wavelengths, (low, high))
    expected = ((image[list(bands)].movedim(0, -1).numpy() - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(picture, expected, atol=1e-6)


def test_bands_without_wavelengths_are_spread() -> None:
    assert rgb_bands(100) == (82, 49, 16)
    assert rgb_bands(1) == (0, 0, 0)
    red, green, blue = rgb_bands(4)
    assert red > green > blue


def test_stretch_is_from_2_to_98_percent_and_shared_limits_make_pictures_comparable() -> None:
    image = torch.linspace(0, 1, 101).reshape(1, 1, 101).repeat(3, 1, 1)
    own = false_colour(image)[0, :, 0]
    np.testing.assert_allclose(own, ((np.linspace(0, 1, 101) - 0.02) / 0.96).clip(0, 1), atol=1e-5)
    np.testing.assert_allclose(false_colour(3 * image + 1), false_colour(image), atol=1e-5)
    limits = stretch_limits(image)
    assert false_colour(image / 2, limits=limits).max() == pytest.approx((0.5 - 0.02) / 0.96, abs=1e-5)


def test_pictures_of_constant_and_of_broken_images_are_finite() -> None:
    assert np.isfinite(false_colour(torch.full((3, 4, 4), 0.3))).all()
    image = torch.rand(3, 10, 10)
    limits = stretch_limits(image)
    image[:, 0, 0], image[:, 0, 1] = torch.nan, torch.inf
    picture = false_colour(image, limits=limits)
    assert (picture[0, :2] == 0).all()
    np.testing.assert_allclose(stretch_limits(image), limits, atol=0.05)


def test_false_colour_names_a_wrong_layout() -> None:
    with pytest.raises(ValueError, match=r'must be \(C, H, W\) with C wavelengths, found \(5, 4\)'):
        false_colour(torch.zeros(5, 4))
    with pytest.raises(ValueError, match=r'found \(4, 2, 2\) with 5 wavelengths'):
        false_colour(torch.zeros(4, 2, 2), WAVELENGTHS)


def test_lines_run_by_wavelength_and_break_where_bands_were_removed() -> None:
    overlapping = (400.0, 410.0, 430.0, 420.0, 440.0, 900.0, 910.0, 2000.0)
    bands = BandAxis(spec_of('spectrum', bands=8, wavelengths=overlapping))
    x, values = bands.broken(bands.x), bands.broken(np.arange(8.0))
    np.testing.assert_array_equal(x, [400, 410, 420, 430, 440, np.nan, 900, 910, 2000])
    np.testing.assert_array_equal(values, [0, 1, 3, 2, 4, np.nan, 5, 6, 7])  # a lone band keeps its line
    whole = BandAxis(spec_of('spectrum', bands=8, wavelengths=tuple(map(int, overlapping))))
    np.testing.assert_array_equal(whole.broken(whole.x), x)


def test_mask_colours_are_stable_and_distinct_and_ignored_pixels_grey() -> None:
    spec = spec_of('segmentation', ignore_index=2)
    picture = mask_colour(torch.tensor([[0, 1, 2], [255, -1, 0]]), spec)
    grey = [0.6] * 3
    expected = [[class_colour(0), class_colour(1), grey], [grey, grey, class_colour(0)]]
    np.testing.assert_allclose(picture, expected)
    many = {to_hex(class_colour(label)) for label in range(60)}
    assert len(many) == 60
    assert not many & {to_hex(REAL), to_hex(SYNTHETIC)}


# --- grid -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('kind', 'rows'), [('scene', 1), ('segmentation', 2), ('change', 3)])
@pytest.mark.parametrize('with_real', [True, False])
def test_images_have_a_column_per_sample_and_a_row_per_layer(kind: Kind, rows: int, with_real: bool) -> None:
    real = batch_of(kind, 3) if with_real else None
    synthetic = batch_of(kind, 7, seed=1)
    spec = spec_of(kind)
    figure = preview_grid(real, synthetic, spec, count=4, suptitle='a $title')
    found = pictures(figure)
    assert len(found) == rows * (4 + 3 * with_real)
    # One stretch for all, taken from the real samples that are shown, or the synthetic ones where there are none.
    limits = stretch_limits(synthetic['image'][:4] if real is None else real['image'], spec.wavelengths)
    layers = []
    for batch in (synthetic,) if real is None else (real, synthetic):
        dates = batch['image'] if kind == 'change' else batch['image'][:, None]
        for date in range(dates.shape[1]):
            layers += [false_colour(image, spec.wavelengths, limits) for image in dates[:4, date]]
        if kind != 'scene':
            layers += [mask_colour(mask.reshape(SIDE, SIDE), spec) for mask in batch['mask'][:4]]
    for shown, expected in zip(found, layers, strict=True):
        np.testing.assert_allclose(shown, expected)
    labels = [axes.get_ylabel() for axes in figure.axes if axes.images and axes.get_ylabel()]
    names = ('real', 'synthetic') if with_real else ('synthetic',)
    layer_names = {'scene': ('',), 'segmentation': ('', '\nmask'), 'change': ('\ndate 1', '\ndate 2', '\nmask')}[kind]
    assert labels == [name + layer for name in names for layer in layer_names]
    assert drawn(figure)


def test_scenes_are_titled_by_their_class() -> None:
    figure = preview_grid(None, batch_of('scene', 4), spec_of('scene'))
    assert [axes.get_title() for axes in figure.axes if axes.images] == ['grass', 'a $x$ roof', 'water', 'grass']


def test_mask_legend_names_the_classes_that_occur_in_their_colours() -> None:
    spec = spec_of('segmentation', ignore_index=255)
    real, synthetic = batch_of('segmentation', 2), batch_of('segmentation', 2, seed=1)
    real['mask'][:], synthetic['mask'][:] = 2, 0
    synthetic['mask'][:, 0] = 255
    figure = preview_grid(real, synthetic, spec)
    assert legend_names(figure)[:3] == ['grass', 'water', 'ignored']
    patches = figure.subfigs[0].legends[0].get_patches()
    assert [to_hex(p.get_facecolor()) for p in patches[:2]] == [to_hex(class_colour(0)), to_hex(class_colour(2))]
    assert [axes.get_title() for axes in panels(figure)] == ['grass', 'water']


def test_spectra_are_means_and_deviations_of_the_pixels_of_each_class() -> None:
    spec = spec_of('segmentation', ignore_index=1)
    real, synthetic = batch_of('segmentation', 3), batch_of('segmentation', 2, seed=1)
    figure = preview_grid(real, synthetic, spec)
    axes = list(panels(figure))
    assert [a.get_title() for a in axes] == ['grass', 'water']
    for one, label in zip(axes, (0, 2), strict=True):
        for line, band, batch, colour in zip(
            one.lines, one.collections, (real, synthetic), (REAL, SYNTHETIC), strict=True
        ):
            pixels = batch['image'].movedim(1, -1)[batch['mask'] == label].numpy()
            np.testing.assert_allclose(np.asarray(line.get_xdata()), WAVELENGTHS)
            np.testing.assert_allclose(np.asarray(line.get_ydata()), pixels.mean(axis=0), rtol=1e-5)
            assert to_rgba(line.get_color()) == to_rgba(colour)
            top = band.get_paths()[0].vertices[:, 1].max()
            assert top == pytest.approx((pixels.mean(axis=0) + pixels.std(axis=0)).max(), rel=1e-5)


def test_spectra_of_pairs_show_each_date() -> None:
    batch = batch_of('change', 2)
    figure = preview_grid(batch, batch_of('change', 2, seed=1), spec_of('change'))
    changed = list(panels(figure))[1]
    assert changed.get_title() == 'change'
    assert [line.get_linestyle() for line in changed.lines] == ['-', '--', '-', '--']
    for date in (0, 1):
        pixels = batch['image'][:, date].movedim(1, -1)[batch['mask'][:, 0] == 1]
        np.testing.assert_allclose(np.asarray(changed.lines[date].get_ydata()), pixels.mean(dim=0), rtol=1e-5)


@pytest.mark.parametrize('with_real', [True, False])
def test_spectra_have_a_panel_per_class_with_a_few_synthetic_lines(with_real: bool) -> None:
    real = batch_of('spectrum', 20) if with_real else None
    synthetic = batch_of('spectrum', 30, seed=1)
    figure = preview_grid(real, synthetic, spec_of('spectrum'), suptitle='spectra')
    axes = list(panels(figure))
    assert [one.get_title() for one in axes] == list(CLASSES)
    water = synthetic['image'][synthetic['label'] == 2].numpy()
    *singles, mean = [np.asarray(line.get_ydata()) for line in axes[2].lines][int(with_real) :]
    np.testing.assert_allclose(singles, water[:3])
    np.testing.assert_allclose(mean, water.mean(axis=0), rtol=1e-5)
    assert figure.get_supxlabel() == 'wavelength (nm)'
    assert figure.get_supylabel() == 'reflectance'
    assert any('real' in name for name in legend_names(figure)) is with_real
    assert drawn(figure)


def test_the_most_frequent_real_classes_come_first_and_no_more_than_count() -> None:
    spec = spec_of('spectrum', classes=('a', 'b', 'c', 'd'))
    real, synthetic = batch_of('spectrum', 9), batch_of('spectrum', 40, seed=1)
    real['label'] = torch.tensor([3, 3, 3, 1, 1, 2, 2, 2, 2])
    synthetic['label'] = torch.zeros(40, dtype=torch.int64)
    titles = [[a.get_title() for a in panels(preview_grid(real, synthetic, spec, count=n))] for n in (1, 2, 4)]
    assert titles == [['c'], ['c', 'd'], ['a', 'b', 'c', 'd']]


def test_bands_that_were_removed_leave_a_gap_and_unknown_wavelengths_are_numbered() -> None:
    gap = (400.0, 410.0, 420.0, 900.0, 910.0)
    synthetic = batch_of('spectrum', 6)
    figure = preview_grid(None, synthetic, spec_of('spectrum', wavelengths=gap, wavelengths_approximate=True))
    line = next(panels(figure)).lines[-1]
    np.testing.assert_array_equal(np.isnan(np.asarray(line.get_ydata(), dtype=float)), [0, 0, 0, 1, 0, 0])
    assert figure.get_supxlabel() == 'wavelength (nm, nominal)'
    lone = preview_grid(None, synthetic, spec_of('spectrum', wavelengths=(400.0, 410.0, 420.0, 430.0, 900.0)))
    assert not np.isnan(np.asarray(next(panels(lone)).lines[-1].get_ydata(), dtype=float)).any()
    plain = preview_grid(None, synthetic, spec_of('spectrum', wavelengths=None, unit=None))
    np.testing.assert_array_equal(next(panels(plain)).lines[-1].get_xdata(), range(5))
    assert (plain.get_supxlabel(), plain.get_supylabel()) == ('band', 'value')


@pytest.mark.parametrize('kind', ['spectrum', 'scene', 'segmentation', 'change'])
def test_unlabelled_samples_share_one_panel(kind: Kind) -> None:
    real, synthetic = batch_of(kind, 3), batch_of(kind, 3, seed=1)
    figure = preview_grid({'image': real['image']}, synthetic, spec_of(kind))
    assert [axes.get_title() for axes in panels(figure)] == ['all samples']
    assert drawn(figure)


def test_batches_that_do_not_fit_are_named() -> None:
    spec, good = spec_of('segmentation'), batch_of('segmentation', 2)
    for real, synthetic, message in (
        (batch_of('change', 2), good, r"real samples of kind 'segmentation' need a non-empty image \('n', 5, 8, 8\)"),
        (good, {'image': good['image'][:0]}, r'synthetic samples .* found \(0, 5, 8, 8\)'),
        (good, {'mask': good['mask']}, r"found the keys \['mask'\]"),
        (None, {**good, 'mask': good['mask'][:, :4]}, r'synthetic mask must be \(2, 8, 8\), found \(2, 4, 8\)'),
    ):
        with pytest.raises(ValueError, match=message):
            preview_grid(real, synthetic, spec)
    with pytest.raises(ValueError, match='count must be at least 1, found 0'):
        preview_grid(None, good, spec, count=0)


# --- one sample -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['spectrum', 'scene', 'segmentation', 'change'])
@pytest.mark.parametrize('form', [Tensor.numpy, Tensor.bfloat16, Tensor.requires_grad_])
def test_one_sample_is_drawn_whatever_holds_its_values(kind: Kind, form: Callable[[Tensor], Any]) -> None:
    spec = spec_of(kind, **({'ignore_index': 255} if kind in ('segmentation', 'change') else {}))
    sample: dict[str, Any] = {key: value[0] for key, value in batch_of(kind, 1).items()}
    sample['prediction'] = sample[spec.target_key] + 0.0
    expected = drawn(plot_sample(sample, spec))
    close = {**sample, 'image': form(sample['image'].clone()), spec.target_key: sample[spec.target_key].numpy()}
    figure = plot_sample(close, spec)
    assert drawn(figure) == expected or form is Tensor.bfloat16
    if kind in ('spectrum', 'scene'):
        assert figure.axes[0].get_title() == 'grass, predicted grass'


def test_one_sample_of_another_size_a_name_with_dollars_and_a_label_that_is_no_class() -> None:
    wide = torch.rand(5, 4, 9)
    (picture,) = pictures(plot_sample({'image': wide, 'label': 255}, spec_of('scene')))
    assert picture.shape == (4, 9, 3)
    named = plot_sample({'image': wide, 'label': 255}, spec_of('scene'))
    assert named.axes[0].get_title() == 'label 255'
    broken = spec_of('scene', classes=('$_^$', 'tree'))
    assert drawn(plot_sample({'image': wide, 'label': 0}, broken, suptitle='$_^$'))
    for sample, message in (
        (
            {'image': torch.rand(2, 4, 9), 'label': 0},
            r"plot_sample: samples of kind 'scene' need .* found \(1, 2, 4, 9\)",
        ),
        ({'image': wide, 'label': 0, 'prediction': torch.rand(3)}, r'prediction must be \(1,\), found \(1, 3\)'),
    ):
        with pytest.raises(ValueError, match=message):
            plot_sample(sample, spec_of('scene'))
