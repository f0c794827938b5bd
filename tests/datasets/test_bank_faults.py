"""Banks that are damaged, foreign, or of an earlier version; and what is verified when."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from banks import SLOW, Own, Source, edit_record, flip_byte, own, rewrite, to_format_1, to_format_2, without_tables
from torch import Tensor

from hsiaug.datasets.bank.export import export_bank
from hsiaug.datasets.bank.reader import BankError, SyntheticBank, checksum
from hsiaug.datasets.bank.writer import write_bank
from hsiaug.samples import SampleSpec

WIDE = 2000  # bands: eight spectra fill a block


def wide_bank(root: Path) -> SyntheticBank:
    """64 spectra of 8 kB in two shards, whose images are five and three blocks."""
    write_bank(Own(SampleSpec('spectrum', WIDE, ('a', 'b', 'c')), 64), None, root, chunk=8, shard_bytes=40 * WIDE * 4)
    return SyntheticBank(root)


# --- where it lies ----------------------------------------------------------------------------------------------------


def test_a_relative_bank_is_read_from_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = write_bank(Source(), root='bank', **SLOW).batch(range(60))  # type: ignore[arg-type]
    bank = SyntheticBank.open('bank')
    (tmp_path / 'trial').mkdir()
    monkeypatch.chdir(tmp_path / 'trial')
    assert torch.equal(bank.batch(range(60))['image'], expected['image'])
    assert torch.equal(pickle.loads(pickle.dumps(bank)).batch(range(60))['image'], expected['image'])
    assert torch.equal(pickle.loads(pickle.dumps(SyntheticBank('../bank')))[3]['image'], expected['image'][3])
    bank.verify()
    assert export_bank(SyntheticBank('../bank'), 'out', 'npz') == tmp_path / 'trial' / 'out.npz'


def test_a_writer_whose_source_changes_the_working_directory_stays_where_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'trial').mkdir()
    bank = write_bank(Source(before=lambda call: os.chdir(tmp_path / 'trial')), root='bank', **SLOW)  # type: ignore[arg-type]
    assert bank.root == tmp_path / 'bank'
    assert len(bank) == 60


def test_a_copy_in_the_same_place_is_the_same_bank(tmp_path: Path) -> None:
    bank = wide_bank(tmp_path / 'bank')
    bank[0]
    os.utime(tmp_path / 'bank' / 'bank.json', (1, 1))
    assert bank[63]['image'].shape == (WIDE,)  # in a shard that is mapped only now


# --- what is verified, and when ---------------------------------------------------------------------------------------


def test_a_read_verifies_the_blocks_that_it_touches_and_no_others(tmp_path: Path) -> None:
    bank = wide_bank(tmp_path)
    assert len(bank.shards) == 2
    first = bank.batch([1, 17])
    assert bank._verified.sum() == 2 + 1  # two blocks of images, one of labels
    path = bank.root / bank.shards[0].file
    content = bytearray(path.read_bytes())
    place = content.index(first['image'][1].numpy().tobytes()) + 100
    content[place] ^= 1
    path.write_bytes(content)
    again = SyntheticBank(tmp_path)
    assert torch.equal(again.batch([1])['image'], first['image'][:1])
    assert again.labels() is not None
    for index in (16, 17, 23):  # all of the block
        with pytest.raises(BankError, match=r'shard-00000\S*: block 2 of image was altered'):
            again[index]
    assert again[24]['image'].shape == (WIDE,)
    with pytest.raises(BankError, match='1 of 2 shards'):
        again.verify()


def test_a_shard_of_another_bank_is_refused(tmp_path: Path) -> None:
    one, two = (write_bank(Source(), root=tmp_path / str(n), **SLOW, seed=n) for n in (1, 2))  # type: ignore[arg-type]
    assert one.shards[3].bytes == two.shards[3].bytes
    shutil.copy(two.root / two.shards[3].file, one.root / one.shards[3].file)
    with pytest.raises(BankError, match=r'shard-00003\S*: the checksums of its blocks have SHA-256'):
        SyntheticBank(one.root)[15]


def test_verifying_much_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    wide_bank(tmp_path / 'bank')
    SyntheticBank(tmp_path / 'bank').batch(range(64))
    assert capfd.readouterr().err == ''
    monkeypatch.setattr('hsiaug.datasets.bank.reader._LONG_READ', 100_000)
    SyntheticBank(tmp_path / 'bank').batch(range(64))
    assert 'verify bank' in capfd.readouterr().err


def test_a_bank_of_format_2_opens_and_is_verified_by_blocks(tmp_path: Path) -> None:
    expected = wide_bank(tmp_path).batch(range(64))
    to_format_2(tmp_path)
    bank = SyntheticBank(tmp_path)
    bank.verify()
    assert all(torch.equal(value, expected[key]) for key, value in bank.batch(range(64)).items())
    flip_byte(tmp_path / bank.shards[1].file)
    with pytest.raises(BankError, match='shard-00001'):
        SyntheticBank(tmp_path)[63]


@pytest.mark.parametrize('kind', ['spectrum', 'segmentation'])
def test_a_bank_of_format_1_opens_and_is_verified_shard_by_shard(kind: Any, tmp_path: Path) -> None:
    source = own(kind)
    expected = write_bank(source, None, tmp_path, chunk=2, shard_bytes=300).batch(range(23))
    to_format_1(tmp_path)
    bank = SyntheticBank(tmp_path)
    assert all(torch.equal(value, expected[key]) for key, value in bank.batch(range(23)).items())
    assert write_bank(source, None, tmp_path, chunk=2, shard_bytes=300).record['format'] == 1  # opened, not written
    flip_byte(tmp_path / bank.shards[1].file)
    again = SyntheticBank(tmp_path)
    again.batch(range(bank.shard_size))
    with pytest.raises(BankError, match=r'shard-00001\S* has SHA-256'):
        again[bank.shard_size]


@pytest.mark.parametrize('format_1', [False, True])
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda t: {**t, 'image': t['image'].double()}, r'image F64 \(5, 10\), expected F32 \(5, 10\)'),
        (lambda t: {**t, 'image': t['image'].half()}, r'image F16 \(5, 10\), expected F32 \(5, 10\)'),
        (lambda t: {**t, 'image': t['image'].long()}, r'image I64 \(5, 10\), expected F32'),
        (lambda t: {**t, 'image': torch.rand(5, 20)}, r'image F32 \(5, 20\), expected F32 \(5, 10\)'),
        (lambda t: {k: torch.cat([v, v]) for k, v in t.items()}, r'image F32 \(10, 10\), expected F32 \(5, 10\)'),
        (lambda t: {**t, 'label': torch.zeros(5, 9)}, r'label F32 \(5, 9\), expected I64 \(5,\)'),
        (lambda t: {**t, 'label': t['label'] + 3}, r'label of sample 10 holds \[3, 4, 5\], expected 0 to 2'),
        (lambda t: {**t, 'label': t['label'] - 3}, r'label of sample 10 holds \[-3, -2, -1\], expected 0 to 2'),
        (lambda t: {**t, 'image': t['image'] / 0}, 'NaN or infinite values in image, the first is sample 10'),
        (lambda t: {**t, 'more': torch.zeros(40)}, r'more F32 \(40,\), expected is not there'),
        (lambda t: {'label': t['label'], 'picture': t['image']}, r'image is not there, expected F32'),
    ],
)
def test_a_shard_that_is_not_what_the_record_says_is_refused(
    format_1: bool, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str, tmp_path: Path
) -> None:
    write_bank(Source(), root=tmp_path, **{**SLOW, 'count': 20})  # type: ignore[arg-type]
    if format_1:
        to_format_1(tmp_path)

    def spoil(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return change({**without_tables(tensors), 'label': torch.arange(5) % 3})

    rewrite(tmp_path, 2, spoil)
    bank = SyntheticBank(tmp_path)
    assert bank[0]['image'].shape == (10,)
    with pytest.raises(BankError, match=message):
        bank[10]
    with pytest.raises(BankError, match=message):
        SyntheticBank(tmp_path).verify()
    with pytest.raises(BankError, match=message):
        export_bank(SyntheticBank(tmp_path), tmp_path.with_name('out'), 'npz')


@pytest.mark.parametrize('length', [0, 100, 10**6, 2**62])
def test_a_shard_without_a_header_is_refused(length: int, tmp_path: Path) -> None:
    bank = write_bank(Source(), root=tmp_path, **SLOW)  # type: ignore[arg-type]
    path = tmp_path / bank.shards[0].file
    path.write_bytes(length.to_bytes(8, 'little') + path.read_bytes()[8:])
    edit_record(tmp_path, lambda r: r['shards'][0].update(sha256=checksum(path)))
    with pytest.raises(BankError, match=r'shard-00000\S* is no'):
        SyntheticBank(tmp_path)[0]


# --- records ----------------------------------------------------------------------------------------------------------


IMPOSSIBLE: list[tuple[str, Any]] = [
    *[(f, v) for f in ('count', 'shard_size', 'chunk') for v in (0, -5, 1e10, float('nan'), '60', None, True)],
    ('count', 10**10), ('count', 10**18), ('count', 10**30), ('shard_size', 10**30), ('chunk', -(10**30)),
    ('shards', []), ('shards', None), ('shards', [{}] * 12), ('shards', 'shard-00000'), ('label_counts', [1, 2]),
    ('label_counts', [60, 60, -60]), ('label_counts', 'many'), ('soft_labels', 1), ('soft_labels', 'no'),
    ('spec', None), ('spec', {'kind': 'spectrum'}), ('spec', []), ('provenance', 'home'),
    ('provenance', {'seed': 1}), ('source', {}), ('source', None), ('seed', 'x'), ('labels', 7), ('format', None),
    ('format', '1'), ('format', 4), ('class_path', 'os.system'),
]  # fmt: skip
OF_A_SHARD: list[dict[str, Any]] = [
    {'file': '../../etc/passwd'}, {'file': 'shard-00001.safetensors'}, {'count': 4}, {'count': -1}, {'bytes': -1},
    {'bytes': 10}, {'bytes': 1e3}, {'blocks': None}, {'blocks': 7},
]  # fmt: skip


def test_records_of_impossible_values_are_refused(tmp_path: Path) -> None:
    write_bank(Source(), root=tmp_path, **SLOW)  # type: ignore[arg-type]
    record = (tmp_path / 'bank.json').read_text()
    for field, value in IMPOSSIBLE:
        edit_record(tmp_path, lambda record, f=field, v=value: record.update({f: v}))  # type: ignore[misc]
        with pytest.raises(BankError, match=r'bank\.json'):
            SyntheticBank(tmp_path)
        with pytest.raises(BankError, match=r'bank\.json'):
            write_bank(Source(), root=tmp_path, **SLOW)  # type: ignore[arg-type]
        (tmp_path / 'bank.json').write_text(record)
    for change in OF_A_SHARD:
        edit_record(tmp_path, lambda record, c=change: record['shards'][0].update(c))  # type: ignore[misc]
        with pytest.raises(BankError):
            SyntheticBank(tmp_path)
        (tmp_path / 'bank.json').write_text(record)
    assert len(SyntheticBank(tmp_path)) == 60


def test_images_that_no_shard_holds_are_refused_before_any_is_allocated(tmp_path: Path) -> None:
    write_bank(own('scene'), None, tmp_path)
    edit_record(tmp_path, lambda record: record['spec'].update(size=[10**6, 10**6]))
    with pytest.raises(BankError, match='do not fit in shard-00000'):
        SyntheticBank(tmp_path)
    declared = 23 * (5 * 4 * 10**8 + 8)
    edit_record(tmp_path, lambda record: record['spec'].update(size=[10**4, 10**4]))
    edit_record(tmp_path, lambda record: record['shards'][0].update(bytes=declared))
    with (tmp_path / 'shard-00000.safetensors').open('r+b') as file:
        file.truncate(declared)  # a hole
    with pytest.raises(BankError, match='MiB of values and holds'):
        SyntheticBank(tmp_path)


@pytest.mark.parametrize(
    'plan',
    [
        '', '{}', '[]', '{"count": 10, "shard_size": 0}', '{"count": 1e400, "shard_size": 1}',
        '{"count": 10000000000, "shard_size": 1}', '{"count": "x", "shard_size": []}',
    ],
)  # fmt: skip
def test_a_plan_that_is_none_is_an_unfinished_bank(plan: str, tmp_path: Path) -> None:
    (tmp_path / 'bank.writing.json').write_text(plan)
    with pytest.raises(BankError, match='being written, or whose writing was cut short: 0 of'):
        SyntheticBank(tmp_path)
    with pytest.raises(BankError, match=r'not the plan of a bank|bank of other settings'):
        write_bank(Source(), root=tmp_path, **SLOW)  # type: ignore[arg-type]


def test_a_folder_in_place_of_the_record_is_named(tmp_path: Path) -> None:
    (tmp_path / 'bank.json').mkdir()
    with pytest.raises(BankError, match=r'bank\.json cannot be read'):
        SyntheticBank(tmp_path)
