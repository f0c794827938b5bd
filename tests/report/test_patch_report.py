import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hsiaug.metrics.patches import patch_fidelity
from hsiaug.report.fidelity_text import patch_parts
from hsiaug.report.html import Section, markdown
from hsiaug.report.samples import plot_class_profiles, plot_class_shares, plot_cooccurrence, plot_samples
from hsiaug.samples import SampleSpec

IGNORE = 255
WAVELENGTHS = (400.0, 450.0, 500.0, 550.0, 900.0, 950.0)  # bands between 550 and 900 nm were removed
NAMES = ('grass', 'a $x$ | <b> with a name longer than any label', 'nowhere')
SPEC = SampleSpec(
    'segmentation', 6, NAMES, wavelengths=WAVELENGTHS, size=(8, 8), ignore_index=IGNORE, unit='reflectance'
)
Pair = tuple[Tensor, Tensor]


def drawn(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return buffer.getvalue()


def pairs(n: int, seed: int) -> Pair:
    """Class 0 above a row of ignored pixels above class 1; a third class never occurs."""
    rng = torch.Generator().manual_seed(seed)
    mask = torch.zeros(n, 8, 8, dtype=torch.int64)
    mask[:, 2], mask[:, 3:] = IGNORE, 1
    return torch.rand(n, 6, 8, 8, generator=rng) + mask.clamp(max=1)[:, None], mask


REAL, FAKE = pairs(10, 0), pairs(6, 1)
MASKS = {'real, training': REAL[1], 'real, test': REAL[1][:2], 'synthetic': FAKE[1].where(FAKE[1] != 1, 0)}


def test_class_shares_are_those_of_counting_pixels() -> None:
    figure = plot_class_shares(MASKS, SPEC)
    axes = figure.axes[0]
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    expected = [[100 * 2 / 7, 100 * 5 / 7, 0]] * 2 + [[100, 0, 0]]
    np.testing.assert_allclose(widths, expected, rtol=1e-6)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(MASKS)
    assert drawn(figure)


def test_cooccurrence_panels_share_a_scale() -> None:
    figure = plot_cooccurrence(MASKS, SPEC)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == list(MASKS)
    tables = [np.ma.filled(axes.images[0].get_array(), 0) for axes in panels]
    # 14 + 8 pairs of class 0 within and between its rows, 35 + 32 of class 1; ignored pixels part the two.
    np.testing.assert_allclose(tables[0], 100 * np.diag([22, 67, 0]) / 89, rtol=1e-6)
    np.testing.assert_allclose(tables[2], 100 * np.diag([1, 0, 0]))
    assert len({axes.images[0].norm.vmax for axes in panels}) == 1
    assert [text.get_text() for text in panels[0].texts] == ['25', '75']
    assert drawn(figure)
    nothing = torch.full((2, 8, 8), IGNORE)
    assert drawn(plot_cooccurrence({'synthetic': nothing}, SPEC))
    assert drawn(plot_class_shares({'synthetic': nothing}, SPEC))


def test_profiles_hold_the_middle_of_each_class() -> None:
    figure = plot_class_profiles({'real, test': REAL, 'synthetic': (FAKE[0] + 1, FAKE[1])}, SPEC)
    axes = figure.axes[0]
    mine = REAL[0].movedim(1, -1)[REAL[1] == 0].numpy()
    median, fake = (np.asarray(line.get_ydata()) for line in axes.lines)
    np.testing.assert_allclose(median, np.insert(np.median(mine, axis=0), 4, np.nan), rtol=1e-5)
    assert np.nanmin(fake - median) > 0.7
    edges = axes.collections[0].get_paths()[0].vertices[:, 1]
    low, high = np.quantile(mine[:, :4], [0.1, 0.9], axis=0)  # the first run of bands
    assert (edges.min(), edges.max()) == pytest.approx((low.min(), high.max()), rel=1e-5)
    assert [text.get_text() for text in figure.axes[2].texts] == ['no pixels']
    assert figure.get_supxlabel() == 'wavelength (nm)'
    assert drawn(figure)


def test_pairs_are_spread_over_the_set() -> None:
    image, mask = REAL
    mask = mask.clone()
    mask[9] = 2  # only the last pair holds the third class
    figure = plot_samples((image, mask), FAKE, SPEC, count=3)
    names = [text.get_text() for part in figure.subfigs for legend in part.legends for text in legend.get_texts()]
    assert 'nowhere' in names
    assert drawn(figure)


def test_markdown_states_bias_and_gaps() -> None:
    def encoder(image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3))

    few = REAL[0][:4], REAL[1][:4]
    result = patch_fidelity(REAL, few, FAKE, SPEC, encoder)
    text = markdown([Section('Fidelity', patch_parts(result, SPEC, MASKS))])
    assert 'no more pairs than features' in text
    assert '| precision | – | – | 1.00 | 1 |' in text  # six synthetic pairs suffice against training pairs alone
    assert '| nowhere | – | 0.0 | 0.0 | 0.0 |' in text
    assert r'| a $x$ \| &lt;b> with' in text
    many = patch_parts(replace(result, compared=500, real_count=500), SPEC, MASKS)
    assert 'no more pairs' not in markdown([Section('Fidelity', many)])
    assert math.isnan(result.msad_per_class[2])
