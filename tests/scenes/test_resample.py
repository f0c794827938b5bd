from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import zoom

from hsiaug.scenes import crop_to_common, stack_bands, upsample


def landscape(height: int, width: int, moved: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Waves of 25 to 60 pixels, seen by a sensor that is ``moved`` by rows and columns; sampled at pixel centres."""
    y, x = np.meshgrid(np.arange(height) + 0.5 + moved[0], np.arange(width) + 0.5 + moved[1], indexing='ij')
    waves = [(0.25, 0.03, 0.0), (0.05, 0.2, 1.0), (0.11, 0.13, 2.0), (-0.1, 0.15, 0.5)]
    return 1000 + np.sum([200 * np.sin(a * y + b * x + c) for a, b, c in waves], axis=0)


def area_means(fine: np.ndarray, factor: int) -> np.ndarray:
    """What coarse pixels measure; the last ones reach beyond the image, where its edge goes on."""
    height, width = (-(-n // factor) * factor for n in fine.shape)
    padded = np.pad(fine, [(0, height - fine.shape[0]), (0, width - fine.shape[1])], mode='edge')
    return padded.reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3))


def shift_of(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(2,) rows and columns by which an image is moved against a reference, by its gradients; contrast may differ."""
    down, across = np.gradient(reference)
    terms = np.stack([np.ones(reference.size), *(a.reshape(-1) for a in (reference, down, across))], axis=1)
    _, gain, *slope = np.linalg.lstsq(terms, image.reshape(-1), rcond=None)[0]
    return np.array(slope) / gain


def test_a_known_shift_is_measured() -> None:
    for moved in ((0.0, 0.0), (0.37, -0.25), (-0.5, 0.6)):
        found = shift_of(3 * landscape(120, 130, moved) + 50, landscape(120, 130))
        np.testing.assert_allclose(found, moved, atol=0.02)


@pytest.mark.parametrize('factor', [2, 6])
@pytest.mark.parametrize('moved', [(0.0, 0.0), (0.4, -0.3)])
def test_coarse_bands_lie_on_the_fine_grid(factor: int, moved: tuple[float, float]) -> None:
    """Odd sizes, as of the real cities, are where a stretch would go wrong."""
    shape = (235, 263)
    fine = landscape(*shape)
    coarse = area_means(landscape(*shape, moved), factor)
    found = upsample(coarse, factor, shape)
    assert found.shape == shape
    inside = np.s_[factor:-factor, factor:-factor]
    np.testing.assert_allclose(shift_of(found[inside], fine[inside]), moved, atol=0.05)
    for corner in (np.s_[factor:80, factor:80], np.s_[-80:-factor, -80:-factor]):
        np.testing.assert_allclose(shift_of(found[corner], fine[corner]), moved, atol=0.1)
    # The test would notice: pixel centres taken for corners are half a coarse pixel off at the far corner.
    naive = zoom(coarse, [wanted / n for wanted, n in zip(shape, coarse.shape, strict=True)], order=1)
    last, first = np.s_[-80:-factor, -80:-factor], np.s_[factor:80, factor:80]
    apart = max(np.abs(shift_of(naive[part], fine[part]) - moved).max() for part in (first, last))
    assert apart > 0.2 * factor


def test_ramps_are_exact_up_to_the_last_row() -> None:
    y, x = np.meshgrid(np.arange(47) + 0.5, np.arange(53) + 0.5, indexing='ij')
    ramp = 3 * y + 5 * x
    for factor, coarse_shape in ((2, (24, 27)), (6, (8, 9))):
        rows, columns = (factor * (np.arange(n) + 0.5) for n in coarse_shape)
        found = upsample(3 * rows[:, None] + 5 * columns, factor, (47, 53))
        half = factor // 2
        assert np.allclose(found[half : 47 - half, half : 53 - half], ramp[half : 47 - half, half : 53 - half])


def test_what_the_coarse_band_lacks_repeats_its_edge() -> None:
    coarse = np.array([[10, 20], [30, 41]], dtype=np.uint16)
    found = upsample(coarse, 2, (5, 3))
    assert found.dtype == np.uint16
    assert found.shape == (5, 3)
    assert found[:, 0].tolist() == [10, 15, 25, 30, 30]
    assert found[0].tolist() == [10, 12, 18]  # 12.5 and 17.5, to the even neighbour
    assert np.array_equal(upsample(coarse, 1, (2, 2)), coarse)
    for factor, shape in ((2, (6, 4)), (2, (4, 2)), (3, (4, 4)), (1, (2, 3)), (0, (2, 2))):
        with pytest.raises(ValueError, match=f'2 x 2 pixels, each {factor} x {factor} .* do not cover {shape[0]} x'):
            upsample(coarse, factor, shape)


def test_bands_of_three_pixel_sizes_are_stacked_in_order() -> None:
    fine = landscape(47, 53)
    bands = {'B01': area_means(fine, 6), 'B02': fine, 'B05': area_means(fine, 2) + 7, 'unused': np.zeros((5, 5))}
    stacked = stack_bands(bands, ('B05', 'B02', 'B01'))
    assert stacked.shape == (47, 53, 3)
    assert np.array_equal(stacked[..., 1], fine)
    assert np.array_equal(stacked[..., 0], upsample(bands['B05'], 2, (47, 53)))
    assert np.array_equal(stacked[..., 2], upsample(bands['B01'], 6, (47, 53)))
    assert stack_bands({'a': np.ones((2, 2), np.uint16), 'b': np.ones((1, 1), np.uint16)}, 'ab').dtype == np.uint16
    assert stack_bands(bands, ('B05',)).shape == (24, 27, 1)
    with pytest.raises(ValueError, match=r"bands \['B8A', 'B12'\] are missing, found \['B01', 'B02'"):
        stack_bands(bands, ('B02', 'B8A', 'B12'))
    with pytest.raises(ValueError, match='5 x 5 pixels, each 11 x 11 fine ones, do not cover 47 x 53'):
        stack_bands(bands, ('B02', 'unused'))


def test_images_are_cut_to_what_all_have() -> None:
    first, second, mask = (np.arange(n * m).reshape(n, m) for n, m in ((7, 9), (8, 8), (7, 10)))
    cut = crop_to_common(first[..., None], second[..., None], mask)
    assert [image.shape for image in cut] == [(7, 8, 1), (7, 8, 1), (7, 8)]
    assert np.array_equal(cut[1][..., 0], second[:7])
    assert np.array_equal(cut[2], mask[:, :8])


@pytest.mark.parametrize('city', ['aguasclaras', 'bercy', 'mumbai', 'pisa'])
def test_real_20_m_bands_fit_the_10_m_bands(real_data: Path, city: str) -> None:
    """Two near-infrared bands of one image, B08 at 10 m and B8A at 20 m; the sizes of these cities are all kinds."""
    with np.load(real_data / 'oscd' / f'{city}.npz') as file:
        fine, coarse = file['t2_10m'][..., 3].astype(float), file['t2_20m'][..., 3].astype(float)
    found = upsample(coarse, 2, fine.shape)
    # Of equal sharpness, so that only the place differs.
    same = upsample(area_means(fine, 2)[: coarse.shape[0], : coarse.shape[1]], 2, fine.shape)
    middle = [n // 2 for n in fine.shape]
    for rows in (slice(4, middle[0]), slice(middle[0], -4)):
        for columns in (slice(4, middle[1]), slice(middle[1], -4)):
            assert np.abs(shift_of(found[rows, columns], same[rows, columns])).max() < 0.5
