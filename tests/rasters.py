"""Rasters of arrays (H, W) or (H, W, C), in the format that the suffix of their file says."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

DRIVERS = {'.png': 'PNG', '.jpg': 'JPEG', '.tif': 'GTiff'}


def write_raster(file: Path, values: np.ndarray, **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.atleast_3d(values)
    height, width, count = values.shape
    profile = {'driver': DRIVERS.get(file.suffix, 'ENVI'), 'dtype': values.dtype, 'transform': from_origin(0, 0, 1, 1)}
    with rasterio.open(file, 'w', height=height, width=width, count=count, **{**profile, **options}) as out:
        out.write(np.moveaxis(values, 2, 0))
    return file
