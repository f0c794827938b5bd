import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hsiaug.scenes import SceneFileError, open_scene

CUBE = np.random.default_rng(0).random((6, 8, 4))
ZEROS = np.zeros(1 << 24, dtype=np.uint8)  # 16 MiB, written 32 times


def bomb(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> None:
    """A member of zeros of 512 MiB."""
    with archive.open(name, 'w', force_zip64=True) as stream:
        header = {'descr': '|u1', 'fortran_order': False, 'shape': shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for _ in range(32):
            stream.write(ZEROS.data)


def test_only_the_members_asked_for_are_decompressed(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / 'x.npz', cube=CUBE)
    with zipfile.ZipFile(tmp_path / 'x.npz', 'a', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        bomb(archive, 'other.npy', (1 << 29,))
        archive.writestr('readme.txt', 'text')
    tracemalloc.start()
    scene = open_scene(tmp_path / 'x.npz')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(scene.cube, CUBE)
    assert peak < 16 << 20
    with zipfile.ZipFile(tmp_path / 'y.npz', 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        bomb(archive, 'cube.npy', (1 << 10, 1 << 10, 1 << 9))
    with pytest.raises(SceneFileError, match=r"'cube' declares 512 MiB of values and holds"):
        open_scene(tmp_path / 'y.npz')
