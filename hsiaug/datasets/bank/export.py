"""Export of banks to other formats: ``.npz``, GeoTIFF pairs, and Parquet or WebDataset shards with a dataset card."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import rasterio
from filelock import FileLock, Timeout
from rasterio.errors import NotGeoreferencedWarning
from torch import Tensor

from ...progress import progress_bar
from ...records import in_markdown
from ...samples import SampleSpec
from .folder import names_place, size_text
from .reader import SyntheticBank
from .record import FRACTIONS, BankError, layout_bytes, numpy_dtype

ExportFormat = Literal['npz', 'geotiff', 'webdataset', 'parquet']

Advance = Callable[[int], object]
"""Advances a progress bar."""
Blocks = Iterator[tuple[range, dict[str, Tensor]]]
"""Numbers of samples, and the stacked samples."""

RECORD_FILE = 'spec.json'
_BLOCK_BYTES = 16 << 20  # samples read at once


def export_bank(bank: SyntheticBank, out: str | os.PathLike[str], format: ExportFormat, progress: bool = False) -> Path:
    """Write a bank in another format. The result appears complete or not at all.

    *npz*: one file with the stacked tensors, ``wavelengths`` and ``record`` (spec, seed and provenance as JSON).
    *geotiff*: a folder with one file per image and mask: ``images/`` and, depending on the kind, ``masks/`` or
    ``labels.csv``; for pairs of dates ``A/``, ``B/`` and ``label/``. *webdataset* and *parquet*: a folder for the
    Hugging Face hub, with ``README.md`` (the dataset card), ``spec.json`` (the record) and ``data/train-*``, to be read
    with the ``webdataset`` library or :class:`~hsiaug.datasets.TarShards`, or Hugging Face ``datasets``. Parquet needs
    pyarrow.

    Args:
        bank: the bank.
        out: file (npz; the suffix is added if missing), which must not exist, or folder, which must be new or empty.
        format: ``'npz'``, ``'geotiff'``, ``'webdataset'`` or ``'parquet'``.
        progress: show a progress bar.

    Returns:
        the file or folder.

    Raises:
        BankError: for an unknown format, a file or folder that is in use or cannot be written, spectra as GeoTIFF, or
            Parquet without pyarrow.
    """
    if not isinstance(bank, SyntheticBank):
        raise BankError(
            f'export_bank: a SyntheticBank expected, found {type(bank).__name__}; open a folder with '
            'SyntheticBank.open(folder), or write a bank of a generator or a dataset with write_bank'
        )
    if format not in get_args(ExportFormat):
        raise BankError(f'unknown export format {format!r}; choose from {get_args(ExportFormat)}')
    if format == 'geotiff' and bank.spec.kind == 'spectrum':
        raise BankError("spectra cannot be exported as GeoTIFF; use format='npz'")
    if format == 'parquet' and find_spec('pyarrow') is None:
        raise BankError('Parquet is written by pyarrow, which is not installed: pip install pyarrow')
    out = Path(out).expanduser().absolute()
    if format == 'npz' and out.suffix != '.npz':
        out = out.with_name(out.name + '.npz')
    write = {
        'npz': _write_npz, 'geotiff': _write_geotiff, 'webdataset': _write_webdataset, 'parquet': _write_parquet,
    }[format]  # fmt: skip
    with names_place(out):
        require_free(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        needed = len(bank) * layout_bytes(bank.spec.layout(bank.soft_labels))
        free = shutil.disk_usage(out.parent).free
        if free < needed:
            raise BankError(f'{out}: the export needs {size_text(needed)}, but {size_text(free)} are free; make room')
        bar = progress_bar(progress, total=len(bank), desc=format, unit='sample')
        with _staged(out) as staging, bar as advance:
            write(bank, staging, advance)
    return out


def require_free(out: Path) -> None:
    """Check that the destination of an export is free.

    Raises:
        BankError: naming what is there.
    """
    if out.is_dir() and out.suffix != '.npz':
        if any(out.iterdir()):
            raise BankError(f'{out} exists and is not an empty folder; choose another folder or remove it')
    elif out.exists() or out.is_symlink():
        raise BankError(f'{out} exists already; choose another place or remove it')


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A temporary file or folder that becomes ``out`` in the end. Leftovers of interrupted exports are removed."""
    staging, lock = out.with_name(f'.{out.name}.tmp'), FileLock(out.with_name(f'.{out.name}.lock'), timeout=0)
    try:
        with lock:
            _remove(staging)
            try:
                yield staging
                require_free(out)  # something may have appeared there in the meantime
                os.replace(staging, out)
            finally:
                _remove(staging)
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        raise BankError(f'{out}: another process is exporting to it; wait for it or choose another place') from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _record(bank: SyntheticBank) -> dict[str, Any]:
    return {key: bank.record[key] for key in ('spec', 'seed', 'labels', 'provenance')}


def _blocks(bank: SyntheticBank, wanted: range, keys: Collection[str] | None = None) -> Blocks:
    """Samples in order, a few at a time, so that memory stays low."""
    step = max(1, _BLOCK_BYTES // (4 * math.prod(bank.spec.image_shape)))
    for first in range(wanted.start, wanted.stop, step):
        rows = range(first, min(first + step, wanted.stop))
        yield rows, bank.batch(rows, keys)


def _write_npz(bank: SyntheticBank, path: Path, advance: Advance) -> None:
    small: dict[str, np.ndarray] = {'record': np.array(json.dumps(_record(bank)))}
    if bank.spec.wavelengths is not None:
        small['wavelengths'] = np.array(bank.spec.wavelengths)
    if (fractions := bank.class_fractions()) is not None:
        small[FRACTIONS] = fractions.numpy()
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED, allowZip64=True) as archive:
        for key, (dtype, shape) in bank.spec.layout(bank.soft_labels).items():
            header = {
                'descr': np.lib.format.dtype_to_descr(numpy_dtype(dtype)),
                'fortran_order': False,
                'shape': (len(bank), *shape),
            }
            with archive.open(zipfile.ZipInfo(f'{key}.npy'), 'w', force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for rows, batch in _blocks(bank, range(len(bank)), (key,)):
                    file.write(batch[key].numpy().data)
                    advance(len(rows) if key == 'image' else 0)
        for key, array in small.items():
            with archive.open(zipfile.ZipInfo(f'{key}.npy'), 'w', force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _write_geotiff(bank: SyntheticBank, folder: Path, advance: Advance) -> None:
    spec = bank.spec
    folder.mkdir()
    (folder / RECORD_FILE).write_text(json.dumps(_record(bank), indent=1))
    dates, masks = (('A', 'B'), 'label') if spec.kind == 'change' else (('images',), 'masks')
    for name in (*dates, masks) if spec.target_key == 'mask' else dates:
        (folder / name).mkdir()
    table: list[list[Any]] = [['file', 'label', 'class', *(spec.classes if bank.soft_labels else ())]]
    for rows, batch in _blocks(bank, range(len(bank))):
        for i, row in enumerate(rows):
            name = f'{row:06d}.tif'
            image = batch['image'][i].numpy()
            for date, picture in zip(dates, image if spec.kind == 'change' else [image], strict=True):
                _write_image(folder / date / name, picture, spec)
            if spec.target_key == 'mask':
                _write_mask(folder / masks / name, batch['mask'][i].numpy(), spec)
            else:
                label = int(batch['label'][i])
                named = spec.classes[label] if label != spec.ignore_index else ''
                shares = batch['label_prob'][i].tolist() if bank.soft_labels else []
                table.append([f'images/{name}', label, named, *shares])
            advance(1)
    if spec.target_key == 'label':
        with (folder / 'labels.csv').open('w', newline='', encoding='utf-8') as file:
            csv.writer(file).writerows(table)


def _write_image(path: Path, image: np.ndarray, spec: SampleSpec) -> None:
    with _tiff(path, image.shape, 'float32') as file:
        file.write(image)
        if spec.wavelengths is not None:
            file.descriptions = tuple(f'{w:g} nm' for w in spec.wavelengths)
            for band, wavelength in enumerate(spec.wavelengths, start=1):
                file.update_tags(band, wavelength=wavelength)  # in nm, as hsiaug.scenes reads it


def _write_mask(path: Path, mask: np.ndarray, spec: SampleSpec) -> None:
    values = [0, spec.num_classes - 1, *([] if spec.ignore_index is None else [spec.ignore_index])]
    ranges = {name: np.iinfo(name) for name in ('uint8', 'int16', 'int32')}
    fitting = [name for name, limits in ranges.items() if limits.min <= min(values) and max(values) <= limits.max]
    if not fitting:
        raise BankError(f'{spec.num_classes} classes with ignore index {spec.ignore_index} do not fit a GeoTIFF mask')
    dtype = fitting[0]
    mask = mask.reshape(1, *mask.shape[-2:])
    with _tiff(path, mask.shape, dtype, nodata=spec.ignore_index) as file:
        file.write(mask.astype(dtype))


@contextmanager
def _tiff(path: Path, shape: tuple[int, ...], dtype: str, nodata: int | None = None) -> Iterator[Any]:
    count, height, width = shape
    with warnings.catch_warnings():
        # Synthetic images have no position on earth.
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        with rasterio.open(
            path, 'w', 'GTiff', width, height, count, dtype=dtype, nodata=nodata, interleave='band'
        ) as file:
            yield file


def _write_parquet(bank: SyntheticBank, folder: Path, advance: Advance) -> None:
    """Write a column for each key, of nested lists with fixed lengths."""
    import pyarrow as pa
    from pyarrow import parquet

    def column(values: np.ndarray) -> Any:
        found = pa.array(values.reshape(-1))
        for length in reversed(values.shape[1:]):
            found = pa.FixedSizeListArray.from_arrays(found, length)
        return found

    for path, blocks in _shards(bank, folder, 'parquet'):
        file: Any = None
        for rows, batch in blocks:
            table = pa.table({key: column(value.numpy()) for key, value in batch.items()})
            file = file or parquet.ParquetWriter(path, table.schema, use_dictionary=False)
            file.write_table(table)
            advance(len(rows))
        file.close()


def _write_webdataset(bank: SyntheticBank, folder: Path, advance: Advance) -> None:
    for path, blocks in _shards(bank, folder, 'tar'):
        with tarfile.open(path, 'w', format=tarfile.USTAR_FORMAT) as archive:
            for rows, batch in blocks:
                for i, row in enumerate(rows):
                    for key, value in batch.items():
                        _add(archive, row, key, value[i].numpy())
                    advance(1)


def _add(archive: tarfile.TarFile, row: int, key: str, value: np.ndarray) -> None:
    """Add one tensor of a sample. Owner and time stay empty, so that the same bank gives the same file."""
    buffer = io.BytesIO()
    if key == 'label':
        buffer.write(str(int(value)).encode())
    else:
        np.lib.format.write_array(buffer, value, allow_pickle=False)
    member = tarfile.TarInfo(f'{row:08d}.{key}.{"cls" if key == "label" else "npy"}')
    member.size = buffer.tell()
    buffer.seek(0)
    archive.addfile(member, buffer)


def _shards(bank: SyntheticBank, folder: Path, suffix: str) -> Iterator[tuple[Path, Blocks]]:
    """The file of each shard with its samples, a few at a time; card and record are written first."""
    (folder / 'data').mkdir(parents=True)
    (folder / RECORD_FILE).write_text(json.dumps(_record(bank), indent=1))
    (folder / 'README.md').write_text(_card(bank, suffix), encoding='utf-8')
    for number, shard in enumerate(bank.shards):
        first = number * bank.shard_size
        yield folder / 'data' / f'train-{number:05d}.{suffix}', _blocks(bank, range(first, first + shard.count))


def _card(bank: SyntheticBank, suffix: str) -> str:
    """A dataset card of the Hugging Face hub, in Markdown with a YAML head."""
    from huggingface_hub import DatasetCardData

    spec, provenance, name = bank.spec, bank.provenance, bank.root.name
    digits = max(3, len(str(len(bank) - 1)))
    sizes = {3: 'n<1K', 4: '1K<n<10K', 5: '10K<n<100K', 6: '100K<n<1M', 7: '1M<n<10M', 8: '10M<n<100M'}
    task = {'scene': 'image-classification', 'segmentation': 'image-segmentation', 'change': 'image-segmentation'}
    members = ', '.join(
        f'`{key}` {str(dtype).removeprefix("torch.")} {shape}'
        for key, (dtype, shape) in spec.layout(bank.soft_labels).items()
    )
    head = DatasetCardData(
        pretty_name=name, license='unknown', tags=['hyperspectral', 'remote-sensing', 'synthetic'],
        task_categories=[task[spec.kind]] if spec.kind in task else None,
        size_categories=[sizes.get(digits, '100M<n<1B')],
        configs=[{
            'config_name': 'default', 'data_files': [{'split': 'train', 'path': f'data/train-*.{suffix}'}],
        }],
    )  # fmt: skip
    lines = ['---', head.to_yaml(), '---', '', f'# {name}', '']
    lines += [f'{len(bank)} synthetic hyperspectral samples.', '']
    lines += [f'- kind: {spec.kind}, {spec.bands} bands, unit {spec.unit or "unknown"}']
    lines += [f'- classes, from label 0: {", ".join(map(in_markdown, spec.classes))}']
    lines += [f'- ignored label: {spec.ignore_index}'] if spec.ignore_index is not None else []
    lines += [f'- members of a sample: {members}']
    lines += [f'- wavelengths, value range and provenance: `{RECORD_FILE}`']
    if provenance is not None:
        lines += [f'- drawn with seed {bank.seed} from a generator trained on split `{provenance.split}`']
        lines += [f'- its setting: `{json.dumps(dict(provenance.training), sort_keys=True)}`']
    return '\n'.join(lines) + '\n'
