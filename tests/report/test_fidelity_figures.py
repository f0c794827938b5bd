import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from hsiaug.report.samples import plot_class_spectra, plot_interpolation, plot_pca
from hsiaug.samples import SampleSpec

WAVELENGTHS = (400.0, 450.0, 500.0, 550.0, 900.0, 950.0)  # bands between 550 and 900 nm were removed
SPEC = SampleSpec('spectrum', 6, ('grass', 'a $x$ <b>', 'nowhere'), wavelengths=WAVELENGTHS, unit='reflectance')


def drawn(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return buffer.getvalue()


@pytest.fixture
def real() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(40, 6, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2


def test_class_means_break_at_removed_bands(real: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = real
    figure = plot_class_spectra(real, (x + 1, y), SPEC)
    axes = figure.axes[0]
    assert figure.get_supxlabel() == 'wavelength (nm)'
    mean = np.asarray(axes.lines[0].get_ydata())
    np.testing.assert_allclose(mean, np.insert(x[y == 0].mean(dim=0).numpy(), 4, np.nan), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(axes.lines[1].get_ydata()), mean + 1, rtol=1e-6)
    # The band around the mean is one standard deviation: its highest vertex by hand.
    top = axes.collections[0].get_paths()[0].vertices[:, 1].max()
    first = x[y == 0][:, :4].numpy()
    assert top == pytest.approx((first.mean(axis=0) + first.std(axis=0)).max(), rel=1e-5)
    assert drawn(figure)


def test_pca_is_fitted_on_real(real: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = real
    fake = torch.rand(30, 6, generator=torch.Generator().manual_seed(1)) * 5
    figure = plot_pca(x, y, fake, torch.zeros(30, dtype=torch.int64), SPEC)
    shown = np.asarray(figure.axes[1].collections[0].get_offsets())
    np.testing.assert_allclose(shown, PCA(2).fit(x.numpy()).transform(fake.numpy()), rtol=1e-4, atol=1e-5)
    assert drawn(figure)


def test_interpolation_without_wavelengths() -> None:
    spec = SampleSpec('spectrum', 3, ('a', 'b'))
    spectra = torch.arange(15.0).reshape(5, 3)
    figure = plot_interpolation(spectra, torch.linspace(0, 1, 5), spec, 'a to $b$ and $')
    axes = figure.axes[0]
    assert axes.get_xlabel() == 'band'
    np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], spectra.numpy())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['α = 0', 'α = 1']
    assert drawn(figure)
