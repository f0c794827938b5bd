"""Samples that other libraries hold, as sources: tar shards, Hugging Face's datasets, Parquet."""

import io
import json
import pickle
import tarfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchgeo.datasets import DatasetNotFoundError
from toys import Toy

import hsiaug
from hsiaug import MixedDataset, SampleSpec, SyntheticBank, SyntheticMix
from hsiaug.datasets import TarShards, write_bank
from hsiaug.datasets.bank.export import export_bank
from hsiaug.datasets.bank.record import BankError
from hsiaug.samples import Kind
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator

KINDS = ['spectrum', 'scene', 'segmentation', 'change']


def bank_of(kind: Kind, folder: Path, n: int = 11) -> SyntheticBank:
    return write_bank(Toy(kind, n, seed=1), None, folder / 'bank', chunk=4, shard_bytes=4 * 1400)  # several shards


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: Any = 'w') -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


# --- tar shards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', KINDS)
def test_an_exported_bank_is_read_back_as_it_was(kind: Kind, tmp_path: Path) -> None:
    bank = bank_of(kind, tmp_path)
    shards = TarShards(export_bank(bank, tmp_path / 'shards', 'webdataset'))
    assert shards.spec == bank.spec
    assert len(shards) == len(bank)
    for row in (0, 7, -1):
        expected = bank[row]
        assert set(shards[row]) == set(expected)
        for key, value in expected.items():
            assert torch.equal(shards[row][key], value), key
            assert shards[row][key].dtype == value.dtype
    real = Toy(kind, 8)
    mixed = MixedDataset(real, shards, 1.0)
    loaded = [next(iter(DataLoader(mixed, 16, num_workers=workers))) for workers in (0, 2)]
    assert torch.equal(loaded[0]['image'], loaded[1]['image'])
    assert loaded[0]['synthetic'].sum() == 8
    assert SyntheticMix(shards, 1.0)(next(iter(DataLoader(real, 8))))['synthetic'].sum() == 4


def test_shards_know_what_their_generator_has_seen(data: TrainingData, tmp_path: Path) -> None:
    bank = write_bank(fit_generator('mixup', data), 20, tmp_path / 'bank')
    assert TarShards(export_bank(bank, tmp_path / 'shards', 'webdataset')).provenance == bank.provenance


def test_shards_of_others(tmp_path: Path) -> None:
    """With names of their own, in directories, in several files, in Fortran order and another byte order."""
    toy = Toy('segmentation', 6)

    def members(rows: range) -> dict[str, bytes]:
        found = {}
        for row in rows:
            image, mask = toy[row]['image'].numpy(), toy[row]['mask'].numpy()
            found |= {
                f'a.b/{row}.hsi.npy': npy(np.asfortranarray(image).astype('>f4')),
                f'a.b/{row}.truth.npy': npy(mask.astype(np.uint8)),
                f'a.b/{row}.where.txt': f'field {row}'.encode(),
                f'a.b/{row}.thumb.jpg': b'...',
            }
        return found

    shards = [write_tar(tmp_path / f'{k}.tar', members(range(3 * k, 3 * k + 3))) for k in (0, 1)]
    opened = TarShards(shards, keys={'hsi.npy': 'image', 'truth.npy': 'mask'})
    assert opened[4]['where'] == 'field 4'
    assert set(opened[4]) == {'image', 'mask', 'where'}
    adapted = hsiaug.adapt(opened, classes=toy.spec.classes)
    for row in range(6):
        assert torch.equal(adapted[row]['image'], toy[row]['image'])
        assert torch.equal(adapted[row]['mask'], toy[row]['mask'])
    one = write_tar(tmp_path / 'one.tar', {'0.npy': npy(np.ones(5, np.float32)), '0.cls': b'2'})
    assert TarShards(one)[0]['image'].sum() == 5
    assert TarShards(one)[0]['label'] == 2


def test_shards_that_the_library_wrote(tmp_path: Path) -> None:
    wds = pytest.importorskip('webdataset', reason='webdataset is missing: pip install webdataset')
    toy = Toy('scene', 5)
    with wds.TarWriter(str(tmp_path / 'own.tar')) as sink:
        for row in range(5):
            sink.write({'__key__': f'{row:03d}', 'npy': toy[row]['image'].numpy(), 'cls': int(toy[row]['label'])})
    adapted = hsiaug.adapt(TarShards(tmp_path), classes=toy.spec.classes)
    assert all(torch.equal(adapted[row]['image'], toy[row]['image']) for row in range(5))
    assert [int(adapted[row]['label']) for row in range(5)] == toy.data['label'].tolist()
    assert SyntheticMix(adapted, 1.0)(next(iter(DataLoader(Toy('scene', 4), 4))))['synthetic'].sum() == 2


class Evil:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('a pickle ran')",)


@pytest.mark.parametrize('suffix', ['pyd', 'pkl', 'PKL', 'pickle', 'pth', 'pt'])
def test_pickles_are_refused_unread(suffix: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / 'x.tar', {'0.npy': npy(np.ones(3)), f'0.more.{suffix}': pickle.dumps(Evil())})
    with pytest.raises(ValueError, match=f'0.more.{suffix} is a pickle'):
        TarShards(path)


def test_damaged_members_are_named(tmp_path: Path) -> None:
    objects = npy(np.array([Evil()], dtype=object), allow_pickle=True)
    large = npy(np.ones(3)).replace(b'(3,)', b'(9999999999999,)').replace(b' ' * 13 + b'\n', b'\n')
    for content in (objects, large, npy(np.ones(3))[:-4], b'', b'text', npy(np.array(['a']))):
        shards = TarShards(write_tar(tmp_path / 'x.tar', {'0.npy': content}))
        with pytest.raises(ValueError, match=r'x\.tar: npy of sample 0 is damaged'):
            shards[0]
    with pytest.raises(ValueError, match='cls of sample 0 is damaged'):
        TarShards(write_tar(tmp_path / 'x.tar', {'0.cls': b'one'}))[0]


def test_what_are_no_shards(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError):
        TarShards(tmp_path)
    with pytest.raises(DatasetNotFoundError):
        TarShards(tmp_path / 'nowhere')
    (tmp_path / 'x.tar').write_text('text')
    for shards in (tmp_path, [tmp_path / 'absent.tar'], write_tar(tmp_path / 'y.tar', {'0.npy': npy(1.0)}, 'w:gz')):
        with pytest.raises(ValueError, match='cannot be read as an uncompressed tar file'):
            TarShards(shards)  # type: ignore[arg-type]
    whole = write_tar(tmp_path / 'z.tar', {f'{k}.npy': npy(np.ones(3)) for k in range(3)})
    whole.write_bytes(whole.read_bytes()[: 4 * 512])  # between two members
    with pytest.raises(ValueError, match=r'z\.tar cannot be read .*: it has no end, as if something were cut off'):
        TarShards(whole)
    lacking = {'0.npy': npy(np.ones(3)), '0.cls': b'1', '1.npy': npy(np.ones(3))}
    with pytest.raises(ValueError, match=r"sample 1 has no \['cls'\], which the first one has"):
        TarShards(write_tar(tmp_path / 'x.tar', lacking))
    with pytest.raises(ValueError, match=r'hold no \.npy, \.cls or \.txt'):
        TarShards(write_tar(tmp_path / 'x.tar', {'0.jpg': b'1'}))
    with pytest.raises(IndexError, match='index out of range for 1'):
        TarShards(write_tar(tmp_path / 'x.tar', {'0.npy': npy(np.ones(3))}))[3]


# --- Hugging Face datasets and Parquet --------------------------------------------------------------------------------


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library; this folder has the same name."""
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    if (found := find_spec('datasets')) is None or found.origin is None:
        pytest.skip('datasets is missing: pip install datasets')
    return import_module('datasets')


@pytest.mark.parametrize('kind', KINDS)
def test_a_bank_as_parquet_is_a_source_again(kind: Kind, datasets: Any, tmp_path: Path) -> None:
    bank = bank_of(kind, tmp_path)
    out = export_bank(bank, tmp_path / 'parquet', 'parquet')
    assert len(list((out / 'data').iterdir())) == len(bank.shards) > (kind != 'spectrum')
    table = datasets.load_dataset(str(out), split='train', cache_dir=str(tmp_path / 'cache')).with_format('torch')
    record = json.loads((out / 'spec.json').read_text())
    source = hsiaug.adapt(table, spec=SampleSpec.from_dict(record['spec']))
    assert source.spec == bank.spec
    for row in (0, 7, 10):
        for key, value in source[row].items():
            assert torch.equal(value, bank[row][key]), key
            assert value.dtype == bank[row][key].dtype
    mixed = MixedDataset(Toy(kind, 8), source, 1.0)
    assert next(iter(DataLoader(mixed, 16, num_workers=1)))['synthetic'].sum() == 8
    with pytest.raises(TypeError, match=r'hsiaug\.adapt'):
        MixedDataset(Toy(kind, 8), table, 1.0)


def test_a_dataset_of_lists_is_adapted_too(datasets: Any) -> None:
    toy = Toy('segmentation', 6)
    rows = [{key: value.numpy().tolist() for key, value in toy[i].items()} for i in range(6)]
    adapted = hsiaug.adapt(datasets.Dataset.from_list(rows), classes=toy.spec.classes)
    assert torch.equal(adapted[3]['image'], toy[3]['image'])
    assert torch.equal(adapted[3]['mask'], toy[3]['mask'])


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of('scene', tmp_path)
    monkeypatch.setattr('hsiaug.datasets.bank.export.find_spec', lambda name: None)
    with pytest.raises(BankError, match='pip install pyarrow'):
        export_bank(bank, tmp_path / 'parquet', 'parquet')
    assert not (tmp_path / 'parquet').exists()
