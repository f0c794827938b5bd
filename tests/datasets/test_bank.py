import errno
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from banks import CLASSES, SLOW, Own, Source, files, flip_byte, launched, own
from lightning.fabric import Fabric
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import DataLoader

from hsiaug.datamodules.mixed import open_source
from hsiaug.datasets import MixedDataset, SpectraDataset, SyntheticDataset
from hsiaug.datasets.bank.export import export_bank
from hsiaug.datasets.bank.reader import BankError, SyntheticBank
from hsiaug.datasets.bank.writer import write_bank
from hsiaug.datasets.contract.batches import ReadAtOnce
from hsiaug.samples import Kind, Sample, SampleSpec
from hsiaug.scenes import Scene, Split
from hsiaug.systems import Generator, TrainingData
from hsiaug.trainers import fit_generator


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of the bank of ``SLOW`` that nothing interrupted."""
    root = tmp_path_factory.mktemp('whole') / 'bank'
    write_bank(Source(), root=root, **SLOW)  # type: ignore[arg-type]
    return files(root)


def forked(action: Callable[[], Any]) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context('fork').Process(target=action, daemon=True)
    process.start()
    return process


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def anonymous_bytes() -> int:
    lines = dict(line.split(':') for line in Path('/proc/self/status').read_text().splitlines())
    return int(lines['RssAnon'].split()[0]) * 1024


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['noise', 'mixup'])
def test_a_bank_is_the_synthetic_dataset_to_the_bit(name: str, data: TrainingData, tmp_path: Path) -> None:
    generator = fit_generator(name, data)
    bank = write_bank(generator, 101, tmp_path, labels='inverse', seed=7, chunk=8, shard_bytes=1000)
    live = SyntheticDataset(generator, 101, 7, 'inverse', chunk=8)
    assert len(bank.shards) > 5
    assert bank.shard_size % 8 == 0
    assert bank.soft_labels == (name == 'mixup') == ('label_prob' in bank[0])
    assert (bank.spec, bank.provenance, bank.seed) == (generator.spec, generator.provenance, 7)
    order = torch.cat([torch.randperm(101), torch.tensor([3, 3, 100, 0])])
    expected, found = live.batch(order), bank.batch(order)
    assert set(found) == set(expected)
    for key in expected:
        assert torch.equal(found[key], expected[key])
        assert found[key].dtype == expected[key].dtype
        assert torch.equal(bank[-1][key], live[100][key])
        assert torch.equal(bank.__getitems__([64, 2])[1][key], live[2][key])
    assert torch.equal(bank.labels(), live.labels())  # type: ignore[arg-type]
    assert bank.class_counts.tolist() == live.counts.tolist()  # type: ignore[union-attr]
    assert {key: value.shape for key, value in bank.batch([]).items()}['image'] == (0, 12)
    for index in (101, -102):
        with pytest.raises(IndexError, match='101 samples'):
            bank[index]
        with pytest.raises(IndexError, match='101 samples'):
            bank.batch([64, index, 2])
    with pytest.raises(TypeError, match=r'whole numbers are expected as indices, found \[\[1, 2\]\]'):
        bank[[1, 2]]  # type: ignore[index]


@pytest.mark.parametrize('kind', ['spectrum', 'scene', 'segmentation', 'change'])
def test_all_kinds_of_sample_come_back(kind: Kind, tmp_path: Path) -> None:
    source = own(kind)
    bank = write_bank(source, None, tmp_path, chunk=2, shard_bytes=300)
    assert len(bank) == 23
    assert len(bank.shards) > 1
    for i, sample in enumerate(bank):  # type: ignore[arg-type]
        expected = source[i]
        assert set(sample) == set(expected) - {'file'}
        assert all(torch.equal(value, expected[key]) for key, value in sample.items())
    image = torch.stack([source[i]['image'] for i in range(23)])
    assert torch.equal(bank.batch(range(22, -1, -1))['image'], image.flip(0))
    assert set(bank.batch([1], keys=['image'])) == {'image'}


def test_large_rows_are_read_as_well_as_small_ones(tmp_path: Path) -> None:
    source = Own(SampleSpec('scene', 5, CLASSES, size=(32, 32)), 9)  # 20 KiB each
    bank = write_bank(source, None, tmp_path, chunk=1, shard_bytes=40_000)
    order = [8, 0, 3, 3, 5]
    assert torch.equal(bank.batch(order)['image'], torch.stack([source[i]['image'] for i in order]))


def test_class_fractions_count_pixels_that_count(tmp_path: Path) -> None:
    masks = torch.tensor([[[0, 1], [1, 255]], [[255, 255], [255, 255]], [[2, 2], [2, 2]]])
    spec = SampleSpec('segmentation', 5, CLASSES, size=(2, 2), ignore_index=255)
    bank = write_bank(Own(spec, 3, lambda i, s: {**s, 'mask': masks[i]}), None, tmp_path)
    expected = torch.tensor([[1 / 3, 2 / 3, 0], [0, 0, 0], [0, 0, 1]])
    assert torch.allclose(bank.class_fractions(), expected)  # type: ignore[arg-type]
    assert bank.labels() is None
    assert bank.class_counts is None
    assert set(bank[0]) == {'image', 'mask'}


def test_images_are_aligned_in_the_file(tmp_path: Path) -> None:
    for kind in ('spectrum', 'segmentation'):
        bank = write_bank(own(kind), None, tmp_path / kind, chunk=3, shard_bytes=1)
        for shard in bank.shards:
            with safe_open(bank.root / shard.file, framework='pt') as file:
                assert all(file.get_tensor(key).data_ptr() % 4 == 0 for key in file.keys())  # noqa: SIM118


def test_a_bank_mixes(scene: Scene, split: Split, data: TrainingData, tmp_path: Path) -> None:
    real = SpectraDataset(scene, split)
    bank = write_bank(fit_generator('noise', data), len(real), tmp_path)
    mixed = MixedDataset(real, bank, 1.0)
    drawn = mixed.batch(range(len(real), len(mixed)))
    assert torch.equal(drawn['image'].sum(dim=1).sort()[0], bank.batch(range(len(bank)))['image'].sum(dim=1).sort()[0])


def test_loader_workers_read_what_this_process_reads(tmp_path: Path) -> None:
    bank = write_bank(Source(), root=tmp_path, **SLOW)  # type: ignore[arg-type]
    expected = bank.batch(range(60))
    fresh = SyntheticBank(tmp_path)
    batches = list(DataLoader(fresh, batch_size=7, num_workers=2, multiprocessing_context='fork'))
    for key in expected:
        assert torch.equal(torch.cat([batch[key] for batch in batches]), expected[key])
    assert fresh._verified.all()  # the workers' checks are known here
    assert not fresh._mapped


def test_a_pickled_bank_trusts_nothing_that_it_verified_elsewhere(tmp_path: Path) -> None:
    bank = write_bank(own('scene'), None, tmp_path)
    bank.verify()
    assert bank._verified.all()
    assert not pickle.loads(pickle.dumps(bank))._verified.any()


def test_random_reading_needs_no_memory_of_its_own(tmp_path: Path) -> None:
    spec = SampleSpec('spectrum', 2000, CLASSES)
    length = 20_000  # 160 MB

    class Rows(Own, ReadAtOnce):
        def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
            label = torch.from_numpy(rows % 3)
            return {'image': (torch.from_numpy(rows)[:, None] + torch.arange(2000)).float(), 'label': label}

    try:
        bank = write_bank(Rows(spec, length), None, tmp_path / 'bank')
        rng = np.random.default_rng(0)
        bank.batch(rng.integers(0, length, 256))
        before, touched = anonymous_bytes(), set()
        for _ in range(250):
            rows = rng.integers(0, length, 256)
            assert torch.equal(bank.batch(rows)['image'][:, 1], torch.from_numpy(rows + 1).float())
            touched.update(rows.tolist())
        assert len(touched) > 0.9 * length
        assert anonymous_bytes() - before < 16 << 20
    finally:
        shutil.rmtree(tmp_path / 'bank')


def test_opening_a_million_spectra_costs_nothing(tmp_path: Path) -> None:
    bank = write_bank(Own(SampleSpec('spectrum', 200, CLASSES), 4), None, tmp_path)
    record = json.loads((tmp_path / 'bank.json').read_text())
    count, size = 1_000_000, record['shard_size']
    record['count'], record['shards'] = count, []
    for number in range(-(-count // size)):
        held = min(size, count - number * size)
        shard = {'file': f'shard-{number:05d}.safetensors', 'count': held, 'bytes': held * 808, 'sha256': '0'}
        with (tmp_path / str(shard['file'])).open('wb') as file:
            file.truncate(held * 808)  # sparse: takes no space
        record['shards'].append(shard)
    (tmp_path / 'bank.json').write_text(json.dumps(record))
    before, times = anonymous_bytes(), []
    for _ in range(5):
        start = time.perf_counter()
        bank = SyntheticBank(tmp_path)
        times.append(time.perf_counter() - start)
    assert len(bank) == count
    assert min(times) < 0.1
    assert anonymous_bytes() - before < 50 << 20


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bank(tmp_path: Path) -> SyntheticBank:
    """60 samples in 12 shards, nothing verified yet."""
    write_bank(Source(), root=tmp_path / 'bank', **SLOW)  # type: ignore[arg-type]
    return SyntheticBank(tmp_path / 'bank')


def test_a_truncated_or_missing_shard_is_refused_at_opening(bank: SyntheticBank) -> None:
    with (bank.root / 'shard-00003.safetensors').open('r+b') as file:
        file.truncate(100)
    (bank.root / 'shard-00007.safetensors').unlink()
    size = bank.shards[3].bytes
    with pytest.raises(
        BankError,
        match=rf'2 of 12 shards.*\n  shard-00003\S* has 100 bytes, expected {size}\n  shard-00007\S* is missing',
    ):
        SyntheticBank(bank.root)
    with pytest.raises(BankError, match='shard-00007'):  # in the bank that was open before, when it gets there
        bank[36]
    assert torch.equal(bank[0]['image'], bank.batch([0])['image'][0])


def test_an_altered_shard_is_refused_at_first_touch_and_by_verify(bank: SyntheticBank) -> None:
    for number in (4, 9):
        flip_byte(bank.root / f'shard-{number:05d}.safetensors')
    opened = SyntheticBank(bank.root)  # reads no shard
    assert opened.batch(range(20))['image'].shape == (20, 10)
    with pytest.raises(BankError, match=r'shard-00004\S*: the checksums of its blocks have SHA-256 [0-9a-f]{64}, exp'):
        opened.batch(range(18, 25))
    assert torch.equal(opened[59]['image'], bank[59]['image'])
    with pytest.raises(BankError, match=r'2 of 12 shards[^\0]*shard-00004[^\0]*shard-00009'):
        opened.verify()
    with pytest.raises(BankError, match='shard-00009'):
        list(DataLoader(SyntheticBank(bank.root), batch_size=5, num_workers=1, sampler=range(45, 50)))


def test_a_bank_that_is_replaced_while_in_use_is_noticed(bank: SyntheticBank) -> None:
    kept = bank[0]['image']
    root = bank.root
    shutil.rmtree(root)
    with pytest.raises(BankError, match='replaced or removed while it was in use'):
        bank[30]
    write_bank(Source(), root=root, **{**SLOW, 'seed': 1})  # type: ignore[arg-type]
    with pytest.raises(BankError, match='replaced or removed while it was in use'):
        bank[30]
    assert torch.equal(bank[0]['image'], kept)  # what is mapped stays what it was


def test_records_that_are_none_are_named(bank: SyntheticBank, tmp_path: Path) -> None:
    with pytest.raises(BankError, match='no folder'):
        SyntheticBank(tmp_path / 'nowhere')
    with pytest.raises(BankError, match=r'bank.json is a file; give the folder'):
        SyntheticBank(bank.root / 'bank.json')
    with pytest.raises(BankError, match=r"samples have no \['imgae'\]; choose from \['image'"):
        bank.batch([0], keys=('imgae',))
    with pytest.raises(BankError, match=r"holds no bank.json \(found \['bank'\]\)"):
        SyntheticBank(tmp_path)
    path = bank.root / 'bank.json'
    record = json.loads(path.read_text())
    for content, message in [
        (path.read_text()[:200], 'damaged'),
        ('[]', 'not the record of a bank'),
        (json.dumps({**record, 'format': 99}), 'format 99'),
        (json.dumps({**record, 'count': 90}), '90 samples in shards of 5 are 18 shards'),
        (
            json.dumps({key: record[key] for key in record if key != 'chunk'}),
            'not the record of a bank: chunk: Field required',
        ),
    ]:
        path.write_text(content)
        with pytest.raises(BankError, match=message):
            SyntheticBank(bank.root)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_writer_killed_at_any_moment_resumes_to_the_same_bytes(tmp_path: Path, whole: dict[str, bytes]) -> None:
    for kill_at in (0, 1, 4, 9):
        root = tmp_path / str(kill_at)
        writer = forked(lambda root=root: write_bank(Source(pause=0.04), root=root, **SLOW))  # type: ignore[misc]
        wait_until(lambda root=root, n=kill_at: (root / 'bank.writing.json').exists() and shards(root) >= n)  # type: ignore[misc]
        os.kill(writer.pid, signal.SIGKILL)  # type: ignore[arg-type]
        writer.join()
        done = shards(root)
        assert kill_at <= done < 12
        with pytest.raises(BankError, match=rf'{done} of 12 shards are done.*same command'):
            SyntheticBank(root)
        source = Source()
        write_bank(source, root=root, **SLOW)  # type: ignore[arg-type]
        assert source.calls == 12 - done + 1  # what was there was not drawn again; one more for the fingerprint
        assert files(root) == whole


def shards(root: Path) -> int:
    return len(list(root.glob('shard-*.safetensors')))


@pytest.mark.parametrize('step', [0, 3, 12])  # the plan, a shard and the record: written, but not in place yet
def test_a_writer_killed_before_a_rename_leaves_nothing_behind(
    step: int, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, calls, replace = tmp_path / 'bank', [], os.replace

    def stuck(source: Path, target: Path) -> None:
        if len(calls) == (step if step < 12 else 13):
            (tmp_path / 'stuck').touch()
            time.sleep(60)
        calls.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', stuck)
        writer = forked(lambda: write_bank(Source(), root=root, **SLOW))  # type: ignore[arg-type]
        wait_until((tmp_path / 'stuck').exists)
    os.kill(writer.pid, signal.SIGKILL)  # type: ignore[arg-type]
    writer.join()
    assert len(list(root.glob('.*.tmp'))) == 1
    write_bank(Source(), root=root, **SLOW)  # type: ignore[arg-type]
    assert files(root) == whole


def test_one_writer_at_a_time(tmp_path: Path, whole: dict[str, bytes]) -> None:
    root = tmp_path / 'bank'
    writer = forked(lambda: write_bank(Source(pause=0.1), root=root, **SLOW))  # type: ignore[arg-type]
    wait_until((root / 'bank.writing.json').exists)
    with pytest.raises(BankError, match='another process is writing'):
        write_bank(Source(), root=root, **SLOW)  # type: ignore[arg-type]
    with pytest.raises(BankError, match='being written'):
        SyntheticBank(root)
    writer.join()
    assert writer.exitcode == 0
    assert files(root) == whole


def test_a_full_disk_loses_nothing(tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    calls, fsync = [], os.fsync

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 4:  # the plan, two shards, and this
            raise OSError(errno.ENOSPC, 'No space left on device')
        fsync(descriptor)

    root = tmp_path / 'bank'
    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        with pytest.raises(BankError, match=r'2 of 12 shards are done, 0\.0 MB more') as caught:
            write_bank(Source(), root=root, **SLOW)  # type: ignore[arg-type]
    assert isinstance(caught.value.__cause__, OSError)
    assert not list(root.glob('.shard*'))
    write_bank(Source(), root=root, **SLOW)  # type: ignore[arg-type]
    assert files(root) == whole


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path, whole: dict[str, bytes]) -> None:
    def limit(call: int) -> None:
        if call == 6:  # the fingerprint, five shards, and this
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    def write() -> None:
        try:
            write_bank(Source(before=limit), root=tmp_path / 'bank', **SLOW)  # type: ignore[arg-type]
        except BankError as error:
            (tmp_path / 'message').write_text(str(error)[-99:])  # the limit holds for this file too

    writer = forked(write)
    writer.join()
    assert 'same command again' in (tmp_path / 'message').read_text()
    assert shards(tmp_path / 'bank') == 5
    write_bank(Source(), root=tmp_path / 'bank', **SLOW)  # type: ignore[arg-type]
    assert files(tmp_path / 'bank') == whole


def test_too_little_space_is_said_before_the_first_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=3_000_000))
    with pytest.raises(BankError, match=r'needs 48\.\d MB more, 3\.0 MB are free'):
        write_bank(Source(), 10**6, tmp_path / 'bank', labels='uniform')
    assert shards(tmp_path / 'bank') == 0


def test_another_plan_is_refused_and_the_same_one_opened(tmp_path: Path, data: TrainingData) -> None:
    root, generator = tmp_path / 'bank', fit_generator('noise', data)
    write_bank(generator, 20, root, seed=3)
    before = {path: path.stat().st_mtime_ns for path in root.iterdir()}
    assert len(write_bank(generator, 20, root, seed=3)) == 20
    assert {path: path.stat().st_mtime_ns for path in root.iterdir()} == before
    with pytest.raises(BankError, match=r'seed: there 3, here 4\n  label_counts: .*\n  count: there 20, here 21'):
        write_bank(generator, 21, root, seed=4)
    with pytest.raises(BankError, match=r"labels: there 'real', here \{'material 0': 1\}\n  label_counts: "):
        write_bank(generator, 20, root, seed=3, labels={'material 0': 1})
    generator.train_x = generator.train_x + 1e-3  # type: ignore[operator]  # not in place: it is the fixture's tensor
    with pytest.raises(BankError, match=r'source\.sha256'):
        write_bank(generator, 20, root, seed=3)


def test_a_resume_with_another_plan_is_refused(tmp_path: Path) -> None:
    root = tmp_path / 'bank'

    def stop(call: int) -> None:
        if call == 3:
            raise RuntimeError('stop')

    with pytest.raises(RuntimeError, match='stop'):
        write_bank(Source(before=stop), root=root, **SLOW)  # type: ignore[arg-type]
    assert shards(root) == 2
    with pytest.raises(BankError, match=r'shard_size: there 5, here 10'):
        write_bank(Source(), root=root, **{**SLOW, 'shard_bytes': 480})  # type: ignore[arg-type]
    assert len(write_bank(Source(), root=root, **SLOW)) == 60  # type: ignore[arg-type]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'thesis.txt').write_text('unsaved')
    with pytest.raises(BankError, match=r"not empty \(found \['thesis.txt'\]\)"):
        write_bank(own('scene'), None, tmp_path)
    assert files(tmp_path) == {'thesis.txt': b'unsaved'}


def spoilt(key: str, change: Callable[[Any], Any]) -> Callable[[int, Sample], Sample]:
    return lambda i, sample: {**sample, key: change(sample[key])} if i == 13 else sample


@pytest.mark.parametrize(
    ('kind', 'spoil', 'message'),
    [
        ('scene', lambda i, s: {**s, 'image': s['image'].double()}, 'image is torch.float64 .* expected torch.float32'),
        ('scene', lambda i, s: {**s, 'image': s['image'][:4]}, r'\(4, 6, 4\) per sample, expected .* \(5, 6, 4\)'),
        ('segmentation', lambda i, s: {**s, 'mask': s['mask'].to(torch.uint8)}, 'mask is torch.uint8 .* torch.int64'),
        ('change', lambda i, s: {**s, 'mask': s['mask'][0]}, r'shape \(6, 4\) per sample, expected .* \(1, 6, 4\)'),
        ('scene', lambda i, s: {k: s[k] for k in s if k != 'label'}, r"the tensors \['image'\]"),
        ('scene', lambda i, s: {**s, 'weight': 1.0}, r"'weight'.* holds \['image', 'label'\]"),
        ('spectrum', spoilt('image', lambda x: x / 0), 'samples 12 to 15: 1 of 4 samples hold NaN .* in image.* 13'),
        ('spectrum', spoilt('label', lambda y: y * 0 + 3), r'label of sample 13 holds \[3\], expected 0 to 2'),
        ('segmentation', spoilt('mask', lambda y: y - 1), r'mask of sample 13 holds \[-1\], expected 0 to 2'),
        ('change', spoilt('mask', lambda y: y + 1), r'mask of sample 13 holds \[2\], expected 0 to 1'),
    ],
)
def test_samples_that_break_the_contract_are_refused(
    kind: Kind, spoil: Callable[[int, Sample], Sample], message: str, tmp_path: Path
) -> None:
    source = own(kind)
    source.spoil = spoil
    with pytest.raises(BankError, match=message):
        write_bank(source, None, tmp_path, chunk=4, shard_bytes=1)
    assert not (tmp_path / 'bank.json').exists()


def test_arguments_that_do_not_fit_the_source_are_refused(tmp_path: Path) -> None:
    for source, count, settings, message in [
        (Source(), None, {}, 'needs a count'),
        (own('scene'), 24, {}, '24 samples were asked for, from a dataset of 23'),
        (own('scene', 0), None, {}, '0 samples were asked for, from a dataset of 0'),
        (own('scene'), None, {'seed': 1}, 'for generators'),
        (own('scene'), None, {'chunk': 0}, 'chunk must be at least 1, found 0'),
        ([1, 2], None, {}, 'list has no spec'),
    ]:
        with pytest.raises(BankError, match=message):
            write_bank(source, count, tmp_path / 'bank', **settings)  # type: ignore[arg-type]
    assert not (tmp_path / 'bank').exists()


# --- many processes ---------------------------------------------------------------------------------------------------


def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path, data: TrainingData) -> None:
    generator = fit_generator('mixup', data)
    settings: dict[str, Any] = {'labels': 'uniform', 'chunk': 4, 'shard_bytes': 600}

    def write(fabric: Fabric) -> None:
        drawn: list[int] = []
        draw = generator.sample
        generator.sample = lambda n, *rest, **more: drawn.append(n) or draw(n, *rest, **more)  # type: ignore
        bank = write_bank(generator, 50, tmp_path / 'two', fabric=fabric, **settings)
        assert len(bank) == 50
        (tmp_path / f'drawn-{fabric.global_rank}').write_text(str(sum(drawn)))
        try:
            write_bank(generator, 51, tmp_path / 'two', fabric=fabric, **settings)
        except BankError as error:
            (tmp_path / f'refused-{fabric.global_rank}').write_text(str(error))

    launched(write)
    write_bank(generator, 50, tmp_path / 'one', **settings)
    assert files(tmp_path / 'two') == files(tmp_path / 'one')
    shares = [int((tmp_path / f'drawn-{rank}').read_text()) for rank in range(2)]
    assert sum(shares) == 50
    assert min(shares) > 15  # both worked
    for rank in range(2):  # neither was left waiting
        assert 'count: there 50, here 51' in (tmp_path / f'refused-{rank}').read_text()


def test_a_process_that_fails_stops_the_others(tmp_path: Path, whole: dict[str, bytes]) -> None:
    def write(fabric: Fabric) -> None:
        def stop(call: int) -> None:
            if fabric.global_rank == 1 and call == 3:
                raise RuntimeError('out of luck')

        try:
            write_bank(Source(before=stop), root=tmp_path / 'bank', fabric=fabric, **SLOW)  # type: ignore[arg-type]
        except (BankError, RuntimeError) as error:
            (tmp_path / f'{fabric.global_rank}').write_text(str(error))

    launched(write)
    assert '1 of 2 processes failed' in (tmp_path / '0').read_text()
    assert (tmp_path / '1').read_text() == 'out of luck'
    assert shards(tmp_path / 'bank') == 6 + 2
    write_bank(Source(), root=tmp_path / 'bank', **SLOW)  # type: ignore[arg-type]
    assert files(tmp_path / 'bank') == whole


def test_a_generator_returns_to_its_device(tmp_path: Path, data: TrainingData) -> None:
    generator: Generator = fit_generator('noise', data)
    fabric = Fabric(accelerator='cpu', devices=1)
    write_bank(generator, 5, tmp_path / 'bank', fabric=fabric)
    assert generator.device == torch.device('cpu')


def test_home_is_home_wherever_a_folder_is_named(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    generator = fit_generator('noise', data)
    generator.save_pretrained('~/generator')
    bank = write_bank(Generator.from_pretrained('~/generator'), 30, '~/bank')
    assert bank.root == tmp_path / 'bank'
    assert export_bank(SyntheticBank.open('~/bank'), '~/exported', 'npz') == tmp_path / 'exported.npz'
    real = SyntheticDataset(generator, 10)
    assert len(MixedDataset(real, '~/bank', 0.5)) == 15
    with pytest.raises(TypeError, match='is the folder of a generator'):
        MixedDataset(real, '~/generator', 0.5)
    assert open_source('~/generator').spec == bank.spec  # type: ignore[union-attr]
    assert not (tmp_path / '~').exists()
