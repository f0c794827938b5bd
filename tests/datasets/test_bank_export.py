import csv
import errno
import io
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from filelock import FileLock
from torch.utils.data import Dataset

from hsiaug.datasets.bank.export import export_bank
from hsiaug.datasets.bank.reader import BankError, SyntheticBank
from hsiaug.datasets.bank.writer import write_bank
from hsiaug.samples import Kind, Sample, SampleSpec
from hsiaug.scenes import open_scene
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator

WAVELENGTHS = (450.25, 560.0, 705.5, 2200.125)


class Pictures(Dataset[Sample]):
    """Images of any kind, all different."""

    def __init__(self, kind: Kind, soft: bool = False, ignore_index: int | None = None) -> None:
        classes = ('same', 'changed') if kind == 'change' else ('water', 'grass', 'bare, dry soil')
        self.spec = SampleSpec(
            kind, 4, classes, wavelengths=WAVELENGTHS, size=(6, 5), ignore_index=ignore_index, unit='reflectance'
        )
        self.soft = soft

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> Sample:
        rng = torch.Generator().manual_seed(index)
        shape = (2, 4, 6, 5) if self.spec.kind == 'change' else (4, 6, 5)
        sample: Sample = {'image': torch.rand(shape, generator=rng)}
        if self.spec.kind == 'scene':
            sample['label'] = torch.tensor(index % 3)
            if self.soft:
                sample['label_prob'] = torch.softmax(torch.rand(3, generator=rng), dim=0)
            return sample
        mask = torch.randint(0, self.spec.num_classes, (6, 5), generator=rng)
        if self.spec.ignore_index is not None:
            mask[0] = self.spec.ignore_index
        sample['mask'] = mask[None] if self.spec.kind == 'change' else mask
        return sample


def bank_of(source: Dataset[Sample], folder: Path) -> SyntheticBank:
    return write_bank(source, None, folder / 'my bank', chunk=2, shard_bytes=2000)  # several shards


def read_tiff(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return file.read()


@pytest.mark.parametrize('kind', ['scene', 'segmentation', 'change'])
def test_npz_holds_every_tensor(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of(Pictures(kind, soft=kind == 'scene'), tmp_path)
    monkeypatch.setattr('hsiaug.datasets.bank.export._BLOCK_BYTES', 3000)  # several blocks
    out = export_bank(bank, tmp_path / 'out' / 'samples', 'npz')
    assert out == tmp_path / 'out' / 'samples.npz'
    expected = bank.batch(range(11))
    with np.load(out, allow_pickle=False) as archive:
        assert set(expected) < set(archive.files)
        for key, value in expected.items():
            assert np.array_equal(archive[key], value.numpy())
            assert archive[key].dtype == value.numpy().dtype
        assert archive['wavelengths'].tolist() == list(WAVELENGTHS)
        assert SampleSpec.from_dict(json.loads(str(archive['record']))['spec']) == bank.spec
        if kind != 'scene':
            assert np.array_equal(archive['class_fractions'], bank.class_fractions())  # type: ignore[arg-type]
    assert os.listdir(out.parent) == ['samples.npz']  # noqa: PTH208


def test_npz_of_spectra_carries_the_provenance(data: TrainingData, tmp_path: Path) -> None:
    bank = write_bank(fit_generator('mixup', data), 50, tmp_path / 'bank', seed=3)
    with np.load(export_bank(bank, tmp_path / 'spectra.npz', 'npz'), allow_pickle=False) as archive:
        assert np.array_equal(archive['label_prob'], bank.batch(range(50))['label_prob'])
        record = json.loads(str(archive['record']))
    assert record['seed'] == 3
    assert record['provenance'] == bank.provenance.to_dict()  # type: ignore[union-attr]


@pytest.mark.filterwarnings('error::rasterio.errors.NotGeoreferencedWarning')
@pytest.mark.parametrize(('ignore_index', 'dtype'), [(None, 'uint8'), (255, 'uint8'), (-1, 'int16')])
def test_geotiff_pairs(ignore_index: int | None, dtype: str, tmp_path: Path) -> None:
    source = Pictures('segmentation', ignore_index=ignore_index)
    out = export_bank(bank_of(source, tmp_path), tmp_path / 'pairs', 'geotiff')
    names = [f'{i:06d}.tif' for i in range(11)]
    assert sorted(path.name for path in (out / 'images').iterdir()) == names
    assert sorted(path.name for path in (out / 'masks').iterdir()) == names
    for i, name in enumerate(names):
        image, mask = read_tiff(out / 'images' / name), read_tiff(out / 'masks' / name)
        assert image.dtype == np.float32
        assert mask.dtype == dtype
        assert np.array_equal(image, source[i]['image'])
        assert np.array_equal(mask[0], source[i]['mask'])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(out / 'images' / names[3]) as file:
            assert file.descriptions == ('450.25 nm', '560 nm', '705.5 nm', '2200.12 nm')
            assert file.nodata is None
        with rasterio.open(out / 'masks' / names[3]) as file:
            assert file.nodata == ignore_index
    scene = open_scene(out / 'images' / names[5], out / 'masks' / names[5])
    assert np.array_equal(np.moveaxis(scene.cube, 2, 0), source[5]['image'])
    assert scene.wavelengths.tolist() == list(WAVELENGTHS)  # type: ignore[union-attr]
    assert json.loads((out / 'spec.json').read_text())['spec']['unit'] == 'reflectance'


def test_geotiff_of_change_pairs_keeps_dates_and_mask_together(tmp_path: Path) -> None:
    source = Pictures('change')
    out = export_bank(bank_of(source, tmp_path), tmp_path / 'pairs', 'geotiff')
    for i in range(11):
        for date, folder in enumerate(('A', 'B')):
            assert np.array_equal(read_tiff(out / folder / f'{i:06d}.tif'), source[i]['image'][date])
        assert np.array_equal(read_tiff(out / 'label' / f'{i:06d}.tif'), source[i]['mask'])


@pytest.mark.parametrize('soft', [False, True])
def test_geotiff_of_labelled_scenes_has_a_table(soft: bool, tmp_path: Path) -> None:
    source = Pictures('scene', soft)
    out = export_bank(bank_of(source, tmp_path), tmp_path / 'scenes', 'geotiff')
    with (out / 'labels.csv').open(newline='') as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 11
    for i, line in enumerate(lines):
        assert np.array_equal(read_tiff(out / line['file']), source[i]['image'])
        assert (int(line['label']), line['class']) == (i % 3, source.spec.classes[i % 3])
        if soft:
            shares = [np.float32(line[name]) for name in source.spec.classes]
            assert np.array_equal(shares, source[i]['label_prob'])


@pytest.mark.parametrize('kind', ['scene', 'segmentation', 'change'])
def test_webdataset_folder_with_its_card(kind: Kind, tmp_path: Path) -> None:
    source = Pictures(kind, soft=kind == 'scene')
    bank = bank_of(source, tmp_path)
    out = export_bank(bank, tmp_path / 'hub', 'webdataset')
    archives = sorted((out / 'data').iterdir())
    assert [path.name for path in archives] == [f'train-{i:05d}.tar' for i in range(len(bank.shards))]
    assert len(archives) > 1
    samples: dict[str, dict[str, Any]] = {}
    for path in archives:
        with tarfile.open(path) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.uname) == (0, 0, '')
                key, name = member.name.split('.', 1)
                content = archive.extractfile(member).read()  # type: ignore[union-attr]
                value = int(content) if name == 'label.cls' else np.load(io.BytesIO(content), allow_pickle=False)
                samples.setdefault(key, {})[name.split('.')[0]] = value
    assert list(samples) == [f'{i:08d}' for i in range(11)]
    for i, sample in enumerate(samples.values()):
        expected = source[i]
        assert set(sample) == set(expected)
        assert all(np.array_equal(sample[key], value) for key, value in expected.items())
    _, head, text = (out / 'README.md').read_text().split('---\n')
    card = yaml.safe_load(head)
    assert card['pretty_name'] == 'my bank'
    assert card['configs'][0]['data_files'] == [{'split': 'train', 'path': 'data/train-*.tar'}]
    assert card['size_categories'] == ['n<1K']
    assert ', '.join(source.spec.classes) in text
    assert SampleSpec.from_dict(json.loads((out / 'spec.json').read_text())['spec']) == bank.spec


def test_names_of_classes_are_plain_text_in_the_card_of_a_bank(tmp_path: Path) -> None:
    source = Pictures('scene')
    source.spec = replace(source.spec, classes=('dry *soil*', 'a_b|<i>', '[x](y)\n# z'))
    card = export_bank(bank_of(source, tmp_path), tmp_path / 'hub', 'webdataset') / 'README.md'
    assert r'- classes, from label 0: dry \*soil\*, a\_b\|&lt;i>, \[x\](y) \# z' in card.read_text().splitlines()


def test_the_same_bank_gives_the_same_archives(tmp_path: Path) -> None:
    bank = bank_of(Pictures('segmentation'), tmp_path)
    first, second = (export_bank(bank, tmp_path / name, 'webdataset') for name in ('one', 'two'))
    for path in (first / 'data').iterdir():
        assert path.read_bytes() == (second / 'data' / path.name).read_bytes()
    one, two = (export_bank(bank, tmp_path / f'{name}.npz', 'npz') for name in ('one', 'two'))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize('format', ['npz', 'geotiff', 'webdataset'])
def test_an_export_that_fails_leaves_nothing(format: Any, tmp_path: Path) -> None:
    bank = bank_of(Pictures('segmentation'), tmp_path)
    shard = bank.root / bank.shards[-1].file
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    (tmp_path / 'out').mkdir()
    with pytest.raises(BankError, match=f'{shard.name}: the checksums of its blocks have SHA-256'):
        export_bank(SyntheticBank(bank.root), tmp_path / 'out' / 'export', format)
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.parametrize('format', ['npz', 'geotiff', 'webdataset'])
def test_an_export_overwrites_nothing(format: Any, tmp_path: Path) -> None:
    bank = bank_of(Pictures('segmentation'), tmp_path)
    out = tmp_path / ('export.npz' if format == 'npz' else 'export')
    out.write_text('the only copy')
    with pytest.raises(BankError, match=f'{out.name} exists already'):
        export_bank(bank, tmp_path / 'export', format)
    assert out.read_text() == 'the only copy'
    out.unlink()
    export_bank(bank, tmp_path / 'export', format)
    with pytest.raises(BankError, match='exists'):
        export_bank(bank, tmp_path / 'export', format)
    assert sorted(os.listdir(tmp_path)) == [out.name, 'my bank']  # noqa: PTH208


@pytest.mark.parametrize('format', ['npz', 'geotiff', 'webdataset'])
def test_a_killed_export_leaves_nothing_that_the_next_does_not_take_away(format: Any, tmp_path: Path) -> None:
    bank = bank_of(Pictures('segmentation'), tmp_path)

    def killed(rows: Any, keys: Any = None) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def export() -> None:
        bank.batch = killed  # type: ignore[method-assign]
        export_bank(bank, tmp_path / 'export', format)

    process = multiprocessing.get_context('fork').Process(target=export)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list(tmp_path.glob('export*'))
    assert list(tmp_path.glob('.export*.tmp'))
    out = export_bank(bank, tmp_path / 'export', format)
    assert sorted(os.listdir(tmp_path)) == [out.name, 'my bank']  # noqa: PTH208


def test_two_exports_do_not_write_in_the_same_place(tmp_path: Path) -> None:
    bank = bank_of(Pictures('segmentation'), tmp_path)
    with FileLock(tmp_path / '.out.lock'), pytest.raises(BankError, match='another process is exporting'):
        export_bank(bank, tmp_path / 'out', 'geotiff')


@pytest.mark.parametrize('format', ['npz', 'geotiff', 'webdataset'])
def test_places_that_cannot_hold_an_export_are_named(
    format: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = bank_of(Pictures('segmentation'), tmp_path)
    (tmp_path / 'file').write_text('text')
    for out in (tmp_path / ('n' * 300), tmp_path / 'file' / 'out'):
        with pytest.raises(BankError, match='cannot be written'):
            export_bank(bank, out, format)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=100))
    with pytest.raises(BankError, match=r'needs 0\.0 MB, but 0\.0 MB are free'):
        export_bank(bank, tmp_path / 'out', format)
    monkeypatch.undo()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(BankError, match='No space left'):
        export_bank(bank, tmp_path / 'out', format)
    assert sorted(os.listdir(tmp_path)) == ['file', 'my bank']  # noqa: PTH208


def test_a_mask_that_no_geotiff_holds_is_named(tmp_path: Path) -> None:
    bank = bank_of(Pictures('segmentation', ignore_index=2**40), tmp_path)
    with pytest.raises(BankError, match='ignore index 1099511627776 do not fit a GeoTIFF mask'):
        export_bank(bank, tmp_path / 'out', 'geotiff')


def test_mistakes_are_named(data: TrainingData, tmp_path: Path) -> None:
    spectra = write_bank(fit_generator('noise', data), 5, tmp_path / 'bank')
    with pytest.raises(BankError, match="format='npz'"):
        export_bank(spectra, tmp_path / 'out', 'geotiff')
    with pytest.raises(BankError, match="unknown export format 'csv'"):
        export_bank(spectra, tmp_path / 'out', 'csv')  # type: ignore[arg-type]
    with pytest.raises(BankError, match='not an empty folder'):
        export_bank(spectra, tmp_path / 'bank', 'webdataset')
    assert len(SyntheticBank(tmp_path / 'bank')) == 5


def test_only_banks_are_exported(tmp_path: Path) -> None:
    for source in (tmp_path, Pictures('scene')):
        with pytest.raises(BankError, match=r'a SyntheticBank expected, found .*SyntheticBank.open\(folder\)'):
            export_bank(source, tmp_path / 'out', 'npz')  # type: ignore[arg-type]
