import pytest
import torch
from torch import Tensor, nn

from hsiaug.models.siamese import AnySides, date_features, enlarge, to_pixels


@pytest.mark.parametrize(('height', 'width', 'upsampling'), [(32, 32, 1), (21, 45, 1), (13, 22, 2), (9, 9, 4)])
def test_a_coarse_map_comes_back_to_the_pixels_it_came_from(height: int, width: int, upsampling: int) -> None:
    rows, columns = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing='ij')
    image = torch.stack([rows, columns]).expand(1, 2, 2, height, width).clone()
    image[:, 1] += 1
    dates = enlarge(image, 16, upsampling)
    assert dates.shape[-2] % 16 == dates.shape[-1] % 16 == 0
    for date in (0, 1):
        coarse = nn.functional.avg_pool2d(dates[:, date], 4)
        found = to_pixels(coarse, image, 16, upsampling)
        assert found.shape == image[:, date].shape
        inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
        assert torch.allclose(found[inside], image[:, date][inside], atol=1e-3)


def test_features_of_the_two_dates_are_not_mixed_up() -> None:
    class Encoder(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x, x, x[..., ::4, ::4], x[..., ::8, ::8]]

    image = torch.rand(3, 2, 4, 16, 16)
    fine, coarse = date_features(Encoder(), image, 8)
    assert torch.equal(fine, image[..., ::4, ::4])
    assert torch.equal(coarse, image[..., ::8, ::8])


def test_networks_that_want_certain_sides_take_any() -> None:
    class Difference(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[-2:] == (32, 64)
            return x[:, 1] - x[:, 0]

    image = torch.rand(2, 2, 3, 31, 40)
    assert torch.allclose(AnySides(Difference())(image), image[:, 1] - image[:, 0], atol=1e-6)


def test_one_date_is_refused() -> None:
    with pytest.raises(ValueError, match=r'two dates \(n, 2, C, H, W\) expected, found \(4, 3, 8, 8\)'):
        enlarge(torch.rand(4, 3, 8, 8), 8)
