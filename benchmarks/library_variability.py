"""Variability with differences between spectra of a library instead of the scene's own unlabelled ones.

The library is that of the package earthlib (MIT; 7261 spectra of soils, plants, litter, burns and roofs from 400 nm),
of which only the file of spectra is read.
"""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from hsiaug.systems import TrainingData
from hsiaug.systems.base import register
from hsiaug.systems.variability import SpectralVariability


def library() -> tuple[np.ndarray, np.ndarray]:
    """Centres in nm, and (N, 180) reflectances."""
    found = find_spec('earthlib')
    if found is None or found.origin is None:
        raise SystemExit('the spectra are in the package earthlib: pip install --no-deps earthlib')
    file = Path(found.origin).parent / 'data' / 'spectra.sli'
    header = file.with_name('spectra.sli.hdr').read_text()
    listed = re.search(r'wavelength = \{(.*?)\}', header, re.S)
    centres = np.array([float(value) for value in listed.group(1).split(',')]) * 1000  # type: ignore[union-attr]
    spectra = np.fromfile(file, dtype='<f4').reshape(-1, len(centres))
    return centres, spectra[np.isfinite(spectra).all(axis=1) & (spectra.max(axis=1) > 0)]


@register('library_variability')
class LibraryVariability(SpectralVariability):
    """As :class:`SpectralVariability`, with the library in the place of unlabelled spectra."""

    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Find each training spectrum's nearest spectra in the library, brought to the sensor's centres."""
        centres, spectra = library()
        there = np.stack([np.interp(data.spec.wavelengths, centres, one) for one in spectra])
        super().fit(replace(data, unlabelled=torch.from_numpy(there.astype(np.float32)), positions=None), seed)
