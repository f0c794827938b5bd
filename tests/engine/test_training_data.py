import math

import pytest
import torch

from hsiaug.engine.data import require_finite_samples


@pytest.mark.parametrize('shape', [(5, 4), (5, 3, 2, 2), (5, 2, 3, 2, 2)])
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_samples_that_are_not_finite_are_counted(shape: tuple[int, ...], value: float) -> None:
    samples = torch.zeros(shape)
    require_finite_samples(samples)
    samples[1].view(-1)[0] = samples[4].view(-1)[-1] = samples[4].view(-1)[0] = value
    with pytest.raises(ValueError, match='2 of 5 spectra hold NaN or infinite values; leave these bands out'):
        require_finite_samples(samples, 'spectra', 'bands')


def test_marks_of_missing_data_are_no_values() -> None:
    samples = torch.full((5, 4), 1e15)
    samples[2, 1] = -3.4028e38
    with pytest.raises(ValueError, match=r'1 of 5 images hold values beyond 1e\+18, as missing data are marked'):
        require_finite_samples(samples)


def test_no_samples_are_finite() -> None:
    require_finite_samples(torch.empty(0, 4))
