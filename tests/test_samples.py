import dataclasses
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from hsiaug.samples import (
    Footprint,
    LeakageError,
    Provenance,
    SampleSpec,
    SpecMismatchError,
    require_compatible,
    require_unseen,
)

SPEC = SampleSpec('spectrum', 3, ('a', 'b'), wavelengths=(400.0, 500.0, 600.0), unit='reflectance')


def test_spec_survives_json_unchanged() -> None:
    image = SampleSpec('segmentation', 2, ('x', 'y'), size=(8, 9), ignore_index=255, value_range=(0.0, 1.0))
    for spec in (SPEC, image):
        assert SampleSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'kind': 'voxel'}, 'unknown kind'),
        ({'bands': 0}, 'at least 1'),
        ({'wavelengths': (1.0,)}, '3 bands but 1 wavelengths'),
        ({'size': (4, 4)}, 'spectra have none'),
    ],
)
def test_contradictory_spec_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPEC, **change)


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'bands': 4, 'wavelengths': None}, 'bands: real 3, synthetic 4'),
        ({'classes': ('a', 'c')}, 'classes'),
        ({'unit': 'radiance'}, 'unit'),
        ({'wavelengths': (400.0, 500.0, 603.0)}, '3.0 nm'),
    ],
)
def test_mismatch_names_both_sides(change: dict[str, object], named: str) -> None:
    with pytest.raises(SpecMismatchError, match=named):
        require_compatible(SPEC, dataclasses.replace(SPEC, **change))


def test_what_is_unknown_contradicts_nothing_and_nominal_wavelengths_are_tolerant() -> None:
    require_compatible(SPEC, dataclasses.replace(SPEC, wavelengths=None, unit=None))
    require_compatible(SPEC, dataclasses.replace(SPEC, wavelengths=(400.0, 500.0, 603.0), wavelengths_approximate=True))


def test_footprint_holds_exactly_its_pixels_and_stays_small() -> None:
    pixels = np.sort(np.random.default_rng(0).choice(1_000_000, 5000, replace=False))
    footprint = Footprint.of('scene', 1_000_000, pixels)
    assert np.array_equal(footprint.pixels(), pixels)
    assert len(footprint.packed) < 40_000


def test_overlap_is_refused_and_named() -> None:
    seen = Provenance('0', 0, {}, 'fp', Footprint.of('s', 100, np.array([3, 7, 50])))
    again = Provenance.from_dict(json.loads(json.dumps(seen.to_dict())))
    assert again == seen
    with pytest.raises(LeakageError, match=r'seen 2 of 3 evaluation pixels, first flat indices \[7, 50\]'):
        require_unseen(again, 's', np.array([7, 8, 50]))
    require_unseen(again, 's', np.array([8, 9]))
    require_unseen(again, 'another scene', np.array([7]))


def test_import_is_lazy() -> None:
    code = 'import sys, hsiaug; print([m for m in ("torch","torchgeo","sklearn","lightning") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'
    code = (
        'import torch, time; start = time.perf_counter(); import hsiaug, hsiaug.samples; '
        'print(time.perf_counter() - start)'
    )
    assert float(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout) < 1


@pytest.mark.parametrize(
    ('wrong', 'named'),
    [
        ({'wavelengths': (400.0, float('nan'), 600.0)}, 'wavelengths must be a list of a finite number above 0'),
        ({'wavelengths': (400.0, float('inf'), 600.0)}, 'wavelengths must be a list of a finite number above 0'),
        ({'wavelengths': (0.0, 500.0, 600.0)}, 'wavelengths must be a list of a finite number above 0'),
        ({'classes': 'abc'}, "classes.*found 'abc'"),
        ({'classes': ('a', 'b', 'a')}, r"several classes have the name \['a'\]"),
        ({'value_range': (0.0, float('nan'))}, 'value_range'),
        ({'value_range': (1.0, 0.0)}, 'value_range'),
    ],
)
def test_a_spec_that_would_fit_everything_is_refused(wrong: dict[str, Any], named: str) -> None:
    right: dict[str, Any] = {'kind': 'spectrum', 'bands': 3, 'classes': ('a', 'b')}
    SampleSpec(**right)
    with pytest.raises(ValueError, match=named):
        SampleSpec(**{**right, **wrong})
    with pytest.raises(ValueError, match=named):
        SampleSpec.from_dict(json.loads(json.dumps({**right, **wrong})))


def test_lists_and_arrays_in_a_spec_are_its_tuples_and_can_be_saved() -> None:
    plain = SampleSpec('segmentation', 2, ('a', 'b'), (400.0, 500.0), size=(4, 6), ignore_index=255, value_range=(0, 1))
    for make in (list, np.array):
        given: dict[str, Any] = {
            'wavelengths': make([400.0, 500.0]), 'size': make([4, 6]), 'value_range': make([0, 1]),
            'bands': np.int64(2), 'ignore_index': np.int16(255),
        }  # fmt: skip
        spec = SampleSpec('segmentation', classes=make(['a', 'b']), **given)
        assert spec == plain
        assert hash(spec) == hash(plain)
        assert SampleSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == plain
