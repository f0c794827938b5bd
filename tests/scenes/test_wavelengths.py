import numpy as np
import pytest

from hsiaug.scenes.wavelengths import centres_of, to_nanometres


@pytest.mark.parametrize(
    ('values', 'unit', 'expected'),
    [
        ([450.5, 850], 'Nanometers', [450.5, 850]),
        ([0.45, 0.85], 'Micrometers', [450, 850]),
        ([0.45, 120.0], 'micrometer', [450, 120_000]),
        ([4500, 8500], 'Angstroms', [450, 850]),
        ([0.00045], 'Millimeters', [450]),
        ([10_000, 4000], 'Wavenumber', [1000, 2500]),
        ([450, 850], 'Unknown', [450, 850]),
        ([0.45, 0.85], None, [450, 850]),
        ([1, 2, 3], 'Index', None),
        ([1, 2, 3], None, None),
        ([300, 200], 'GHz', None),
        ([450, 850], 'furlongs', None),
        ([np.nan, 850], 'nm', None),
        ([0, 850], None, None),
        ([], 'nm', None),
    ],
)
def test_units(values: list[float], unit: str | None, expected: list[float] | None) -> None:
    found = to_nanometres(values, unit)
    assert (found is None) == (expected is None)
    assert found is None or found.tolist() == pytest.approx(expected)


def test_texts_of_bands() -> None:
    mixed = centres_of(['442.0 nm', '0.55'], [None, 'Micrometers'])
    assert mixed is not None
    assert mixed.tolist() == pytest.approx([442, 550])
    together = centres_of(['0.9', '2.5'], [None, None])
    assert together is not None
    assert together.tolist() == pytest.approx([900, 2500])
    for texts in (['Blue', 'Red'], ['442,0', '550,1'], ['nan', 'nan'], ['442', ''], ['1 2', '3']):
        assert centres_of(texts, [None, None]) is None
