import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from hsiaug.scenes import crop_to_common, stack_bands, upsample

AREA = (235, 263)


def landscape(shape: tuple[int, int], moved: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Waves of 25 to 60 pixels of 1, seen on an area of 235 x 263 of them by so many pixels of equal size.

    Args:
        shape: how many.
        moved: by how much the sensor is moved, in rows and columns of the area.
    """
    y, x = np.meshgrid(
        *((np.arange(n) + 0.5) * side / n + by for n, side, by in zip(shape, AREA, moved, strict=True)), indexing='ij'
    )
    waves = [(0.25, 0.03, 0.0), (0.05, 0.2, 1.0), (0.11, 0.13, 2.0), (-0.1, 0.15, 0.5)]
    return 1000 + np.sum([200 * np.sin(a * y + b * x + c) for a, b, c in waves], axis=0)


def shift_of(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(2,) rows and columns by which an image is moved against a reference, by its gradients; contrast may differ."""
    down, across = np.gradient(reference)
    terms = np.stack([np.ones(reference.size), *(a.reshape(-1) for a in (reference, down, across))], axis=1)
    _, gain, *slope = np.linalg.lstsq(terms, image.reshape(-1), rcond=None)[0]
    return np.array(slope) / gain


def test_a_known_shift_is_measured() -> None:
    for moved in ((0.0, 0.0), (0.37, -0.25), (-0.5, 0.6)):
        found = shift_of(3 * landscape(AREA, moved) + 50, landscape(AREA))
        np.testing.assert_allclose(found, moved, atol=0.02)


@pytest.mark.parametrize('size', [(118, 131), (39, 44)], ids=['20m', '60m'])
@pytest.mark.parametrize('moved', [(0.0, 0.0), (0.4, -0.3)])
def test_coarse_bands_lie_on_the_fine_grid(size: tuple[int, int], moved: tuple[float, float]) -> None:
    """Twice the coarse size is a row more and a column less than the fine one, as in the real cities."""
    fine, coarse = landscape(AREA), landscape(size, moved)
    found = upsample(coarse, AREA)
    assert found.shape == AREA
    corners = np.s_[6:70, 6:70], np.s_[-70:-6, -70:-6], np.s_[6:70, -70:-6], np.s_[-70:-6, 6:70]
    for part in corners:
        np.testing.assert_allclose(shift_of(found[part], fine[part]), moved, atol=0.1)
    # The test would notice corner pixels whose centres coincide.
    naive = zoom(coarse, [wanted / n for wanted, n in zip(AREA, size, strict=True)], order=1)
    apart = [np.abs(shift_of(naive[part], fine[part]) - moved).max() for part in corners]
    assert min(apart) > (0.25 if size[0] > 100 else 1.5)


def test_values_of_edges_and_between() -> None:
    coarse = np.array([[10, 20], [30, 41]], dtype=np.uint16)
    found = upsample(coarse, (4, 4))
    assert found.dtype == np.uint16
    assert found[:, 0].tolist() == [10, 15, 25, 30]
    assert found[0].tolist() == [10, 12, 18, 20]  # 12.5 and 17.5, to the even neighbour
    assert np.array_equal(upsample(coarse, (2, 2)), coarse)
    x = 2 * (np.arange(27) + 0.5) * 53 / 54  # centres of 27 pixels over 53
    ramp = upsample(np.broadcast_to(x, (24, 27)), (47, 53))
    assert np.allclose(ramp[:, 1:-1], (np.arange(53) + 0.5)[1:-1])
    for shape in ((6, 4), (4, 2), (2, 3), (1, 1), (8, 12)):
        with pytest.raises(ValueError, match=f'2 x 2 pixels cannot cover the area of {shape[0]} x {shape[1]}'):
            upsample(coarse, shape)


def test_bands_of_three_pixel_sizes_are_stacked_in_order() -> None:
    bands = {
        'B01': landscape((39, 44)),
        'B02': landscape(AREA),
        'B05': landscape((118, 131)) + 7,
        'odd': np.ones((5, 5)),
    }
    stacked = stack_bands(bands, ('B05', 'B02', 'B01'))
    assert stacked.shape == (*AREA, 3)
    assert np.array_equal(stacked[..., 1], bands['B02'])
    assert np.abs(stacked[..., 0] - bands['B02'] - 7)[2:-2, 2:-2].max() < 20
    assert np.abs(stacked[..., 2] - bands['B02'])[3:-3, 3:-3].max() < 150
    assert stack_bands({'a': np.ones((2, 2), np.uint16), 'b': np.ones((1, 1), np.uint16)}, 'ab').dtype == np.uint16
    assert stack_bands(bands, ('B05',)).shape == (118, 131, 1)
    with pytest.raises(ValueError, match=r"bands \['B8A', 'B12'\] are missing, found \['B01', 'B02'"):
        stack_bands(bands, ('B02', 'B8A', 'B12'))
    with pytest.raises(ValueError, match='5 x 5 pixels cannot cover the area of 235 x 263'):
        stack_bands(bands, ('B02', 'odd'))


def test_images_are_cut_to_what_all_have() -> None:
    first, second, mask = (np.arange(n * m).reshape(n, m) for n, m in ((7, 9), (8, 8), (7, 10)))
    cut = crop_to_common(first[..., None], second[..., None], mask)
    assert [image.shape for image in cut] == [(7, 8, 1), (7, 8, 1), (7, 8)]
    assert np.array_equal(cut[1][..., 0], second[:7])
    assert np.array_equal(cut[2], mask[:, :8])


@pytest.mark.parametrize('city', ['aguasclaras', 'bercy', 'mumbai', 'rennes'])
@pytest.mark.parametrize('date', ['t1', 't2'])
def test_real_20_m_bands_fit_the_10_m_bands(real_data: Path, city: str, date: str) -> None:
    """Near infrared at 10 m (B08) and 20 m (B8A); twice the coarse sizes of these cities miss the fine ones by one."""
    with np.load(real_data / 'oscd' / f'{city}.npz') as file:
        # Without the brightest roofs, whose blooming would outweigh all else.
        fine, coarse = (file[f'{date}_{pixel}'][..., 3].clip(0, 5000).astype(float) for pixel in ('10m', '20m'))
    found = upsample(coarse, (fine.shape[0], fine.shape[1]))
    same = gaussian_filter(fine, 1.0)  # about as sharp, so that only the place differs
    halves = [(slice(4, n // 2), slice(n // 2, -4)) for n in fine.shape]
    for part in itertools.product(*halves):
        assert np.abs(shift_of(found[part], same[part])).max() < 0.25
