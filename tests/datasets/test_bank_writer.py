"""Banks that are asked for wrongly, resumed from what is damaged, or written by processes of which one fails."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from banks import SLOW, Source, files, launched, to_format_1
from filelock import FileLock
from lightning.fabric import Fabric
from safetensors.torch import load_file, save, save_file
from torch.utils.data import ConcatDataset, Subset
from toys import Toy

from hsiaug.datasets.bank.reader import BankError, SyntheticBank
from hsiaug.datasets.bank.shard import map_shard, write_shard
from hsiaug.datasets.bank.writer import write_bank
from hsiaug.datasets.contract.samples import value_problem
from hsiaug.samples import Provenance, Sample, SampleSpec

# --- a shard ----------------------------------------------------------------------------------------------------------


def test_a_shard_is_the_file_that_safetensors_would_write(tmp_path: Path) -> None:
    tensors = {
        'image': torch.rand(900, 30),  # several blocks
        'mask': torch.arange(900)[:, None],
        'label_prob': torch.rand(900, 3),
        'class_fractions': torch.rand(900, 3),
    }
    with (tmp_path / 'shard').open('wb') as file:
        write_shard(file, tensors, 'some bank 0')
    assert (tmp_path / 'shard').read_bytes() == save(load_file(tmp_path / 'shard'), {'shard': 'some bank 0'})
    layout = {key: (value.dtype, tuple(value.shape[1:])) for key, value in tensors.items()}
    assert not list(map_shard(tmp_path / 'shard', layout, 900).altered())


def test_values_are_finite_though_their_sum_is_not() -> None:
    spec = SampleSpec('spectrum', 4, ('a', 'b'))
    assert value_problem('image', torch.full((3, 4), 3e38), spec, 0) is None
    problem = '1 of 3 samples hold NaN or infinite values in image, the first is sample 11'
    for wrong in (float('nan'), float('inf')):
        values = torch.full((3, 4), 3e38)
        values[1, 2] = wrong
        assert value_problem('image', values, spec, 10) == problem


# --- resuming ---------------------------------------------------------------------------------------------------------


def begun(root: Path, seed: int = 0) -> None:
    """A bank of four shards, whose writing stopped after three."""

    def stop(call: int) -> None:
        if call == 4:
            raise RuntimeError('stop')

    with pytest.raises(RuntimeError, match='stop'):
        write_bank(Source(before=stop), root=root, **{**SLOW, 'count': 20}, seed=seed)  # type: ignore[arg-type]


def altered(root: Path) -> None:
    path = root / 'shard-00001.safetensors'
    content = bytearray(path.read_bytes())
    image = load_file(path)['image'].numpy().tobytes()
    content[content.index(image) + 7] ^= 4
    path.write_bytes(content)


def other_place(root: Path) -> None:
    shutil.copy(root / 'shard-00000.safetensors', root / 'shard-00001.safetensors')


def other_bank(root: Path) -> None:
    begun(root.with_name('other'), seed=5)
    shutil.copy(root.with_name('other') / 'shard-00001.safetensors', root / 'shard-00001.safetensors')


def torn(root: Path) -> None:
    (root / 'shard-00001.safetensors').write_bytes((root / 'shard-00001.safetensors').read_bytes()[:100])


def other_dtype(root: Path) -> None:
    tensors = load_file(root / 'shard-00001.safetensors')
    save_file({**tensors, 'image': tensors['image'].double()}, root / 'shard-00001.safetensors')


@pytest.mark.parametrize('damage', [altered, other_place, other_bank, torn, other_dtype])
def test_resuming_draws_a_damaged_shard_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    write_bank(Source(), root=tmp_path / 'whole', **{**SLOW, 'count': 20})  # type: ignore[arg-type]
    begun(tmp_path / 'bank')
    damage(tmp_path / 'bank')
    source = Source()
    with pytest.warns(UserWarning, match=r'shard-00001\S* .*drawn again'):
        write_bank(source, root=tmp_path / 'bank', **{**SLOW, 'count': 20})  # type: ignore[arg-type]
    assert source.calls == 1 + 2  # the fingerprint, the damaged shard and the missing one
    assert files(tmp_path / 'bank') == files(tmp_path / 'whole')
    SyntheticBank(tmp_path / 'bank').verify()


def test_resuming_an_unfinished_bank_of_format_1(tmp_path: Path) -> None:
    write_bank(Source(), root=tmp_path / 'whole', **{**SLOW, 'count': 20})  # type: ignore[arg-type]
    begun(tmp_path / 'bank')
    to_format_1(tmp_path / 'bank')
    with pytest.warns(UserWarning, match='noted no checksums'):
        write_bank(Source(), root=tmp_path / 'bank', **{**SLOW, 'count': 20})  # type: ignore[arg-type]
    assert files(tmp_path / 'bank') == files(tmp_path / 'whole')


# --- arguments and places ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *[('count', value) for value in (0, -1, 2.5, float('nan'), float('inf'), '5', True, 10**30)],
        *[(name, value) for name in ('chunk', 'shard_bytes') for value in (0, -1, 2.5, float('nan'), 'x', False)],
        *[('seed', value) for value in (None, 'x', 1.5, 2**70)],
        *[('labels', value) for value in (None, 'most', 3, {}, 'prior')],
        *[('labels', value) for value in ({'zinc': 1}, {'soil': float('nan')}, {'soil': 'x'}, {'soil': -1})],
        *[('real_counts', np.array(v)) for v in ([1, 2], [0, 0, 0], [-1, 1, 1], [np.nan, 1, 1], ['a', 'b', 'c'])],
    ],
)  # fmt: skip
def test_mistaken_arguments_are_named_and_leave_nothing(name: str, value: Any, tmp_path: Path) -> None:
    source = Source()
    settings: dict[str, Any] = {'count': 5, 'labels': 'uniform', 'root': tmp_path / 'bank', name: value}
    with pytest.raises(BankError, match=f'^(a bank: |a generator needs a )?{name}'):
        write_bank(source, **settings)
    assert source.calls == 0
    assert not (tmp_path / 'bank').exists()


def test_samples_of_several_sizes_are_named(tmp_path: Path) -> None:
    class Uneven(Toy):
        def __getitem__(self, index: int) -> Sample:
            return {key: value[..., : 8 - index // 5] for key, value in super().__getitem__(index).items()}

    with pytest.raises(ValueError, match=r'2 samples .* hold image of several shapes, \[\(5, 8, 7\), \(5, 8, 8\)\]'):
        write_bank(Uneven('segmentation', 6), None, tmp_path / 'bank')


def test_whole_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    bank = write_bank(
        Source(), np.int64(5), tmp_path, labels={'soil': np.float32(1)}, seed=np.int32(3), chunk=np.uint8(2)  # type: ignore[arg-type]
    )  # fmt: skip
    assert bank.class_counts.tolist() == [0, 0, 5]  # type: ignore[union-attr]
    assert (bank.seed, bank.labels_policy) == (3, {'soil': 1.0})


class Chosen(Subset[Sample]):
    """A user's wrapper, which says itself what its samples are."""

    spec = Toy('scene', 1).spec


def test_a_bank_of_wrapped_samples_knows_what_they_are_and_who_drew_them(tmp_path: Path) -> None:
    toys = [Toy('scene', 6), Toy('scene', 5, seed=1)]
    toys[0].provenance = Provenance('0', 0, {}, 'split')  # type: ignore[attr-defined]
    for k, wrapped in enumerate((Subset(toys[0], [4, 1]), Chosen(toys[0], [4, 1]), ConcatDataset(toys[::-1]))):
        bank = write_bank(wrapped, None, tmp_path / str(k))
        assert (bank.spec, bank.provenance) == (toys[0].spec, toys[0].provenance)  # type: ignore[attr-defined]
        assert torch.equal(bank[-1]['image'], wrapped[len(wrapped) - 1]['image'])


def test_places_that_cannot_hold_a_bank_are_named_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source()
    (tmp_path / 'file').write_text('text')
    (tmp_path / 'foreign').mkdir()
    (tmp_path / 'foreign' / 'thesis.txt').write_text('unsaved')
    for root, message in [
        (tmp_path / ('n' * 300), 'File name too long'),
        (tmp_path / 'file' / 'bank', 'is a file|Not a directory'),
        (tmp_path / 'file', 'Not a directory|is a file'),
        (tmp_path / 'foreign', r"not empty \(found \['thesis.txt'\]\)"),
    ]:
        with pytest.raises(BankError, match=message):
            write_bank(source, root=root, **SLOW)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(os, 'access', lambda path, mode: False)
        with pytest.raises(BankError, match='is read-only'):
            write_bank(source, root=tmp_path / 'bank', **SLOW)  # type: ignore[arg-type]
    assert source.calls == 0
    assert sorted(os.listdir(tmp_path)) == ['file', 'foreign']  # noqa: PTH208


@pytest.mark.parametrize('code', [errno.EROFS, errno.EACCES, errno.EIO, errno.ENOSPC])
def test_a_disk_that_refuses_a_file_is_said(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(FileLock, 'acquire', refuse)
        with pytest.raises(BankError, match=os.strerror(code)):
            write_bank(Source(), root=tmp_path, **SLOW)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', refuse)
        with pytest.raises(BankError, match=f'{os.strerror(code)}.*0 of 12 shards are done.*same command again'):
            write_bank(Source(), root=tmp_path, **SLOW)  # type: ignore[arg-type]
    assert not list(tmp_path.glob('*.safetensors'))
    assert len(write_bank(Source(), root=tmp_path, **SLOW)) == 60  # type: ignore[arg-type]


def test_a_finished_bank_opens_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bank(Source(), root=tmp_path, **SLOW)  # type: ignore[arg-type]
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    assert len(write_bank(Source(), root=tmp_path, **SLOW)) == 60  # type: ignore[arg-type]


# --- many processes ---------------------------------------------------------------------------------------------------


def test_a_process_that_fails_before_its_first_draw_stops_the_others(tmp_path: Path) -> None:
    def write(fabric: Fabric) -> None:
        source = Source()
        if fabric.global_rank == 1:
            del source.spec
        try:
            write_bank(source, root=tmp_path / 'bank', fabric=fabric, **SLOW)  # type: ignore[arg-type]
        except BankError as error:
            (tmp_path / f'{fabric.global_rank}').write_text(str(error))

    launched(write)
    assert '1 of 2 processes failed' in (tmp_path / '0').read_text()
    assert 'has no spec' in (tmp_path / '1').read_text()
    assert not (tmp_path / 'bank').exists()


def test_processes_that_were_asked_for_other_banks_are_refused(tmp_path: Path) -> None:
    def write(fabric: Fabric) -> None:
        try:
            write_bank(Source(), root=tmp_path / 'bank', fabric=fabric, seed=fabric.global_rank, **SLOW)  # type: ignore[arg-type]
        except BankError as error:
            (tmp_path / f'{fabric.global_rank}').write_text(str(error))

    launched(write)
    assert 'seed: there 0, here 1' in (tmp_path / '1').read_text()
    assert '1 of 2 processes failed' in (tmp_path / '0').read_text()
    assert not (tmp_path / 'bank').exists()


def test_a_process_that_is_gone_ends_the_others(tmp_path: Path) -> None:
    def write(fabric: Fabric) -> None:
        def leave(call: int) -> None:
            if fabric.global_rank == 1 and call == 3:
                os._exit(0)  # a kill, which the launcher does not notice

        try:
            write_bank(Source(before=leave), root=tmp_path / 'bank', fabric=fabric, **SLOW)  # type: ignore[arg-type]
        except BankError as error:
            (tmp_path / f'{fabric.global_rank}').write_text(str(error))

    with contextlib.suppress(Exception):
        launched(write)
    assert '1 of 2' in (said := (tmp_path / '0').read_text()) or 'one of 2 processes ended unexpectedly' in said
    assert len(write_bank(Source(), root=tmp_path / 'bank', **SLOW)) == 60  # type: ignore[arg-type]
