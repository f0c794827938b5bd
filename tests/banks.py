"""Sources of banks, and what is done to banks, for their tests."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from hsiaug.datasets.bank.reader import checksum
from hsiaug.datasets.bank.shard import Blocks, MappedShard, as_items
from hsiaug.samples import Kind, Sample, SampleSpec

CLASSES = ('water', 'grass', 'soil')
SPECTRUM = SampleSpec('spectrum', 10, CLASSES)


class Source:
    """Draws spectra; may be slow, or do something before a draw."""

    def __init__(self, pause: float = 0.0, before: Callable[[int], None] = lambda call: None) -> None:
        self.spec, self.provenance, self.pause, self.before, self.calls = SPECTRUM, None, pause, before, 0

    def sample(self, n: int, labels: Tensor | None = None, seed: int | None = None) -> dict[str, Tensor]:
        self.before(self.calls)
        self.calls += 1
        time.sleep(self.pause)
        rng = torch.Generator().manual_seed(seed or 0)
        labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels
        return {'image': labels[:, None] + torch.rand(n, 10, generator=rng), 'label': labels}


class Own(Dataset[Sample]):
    """A folder of the user's own; ``spoil`` changes a sample."""

    def __init__(
        self, spec: SampleSpec, length: int, spoil: Callable[[int, Sample], Sample] = lambda i, sample: sample
    ) -> None:
        self.spec, self.length, self.spoil = spec, length, spoil

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = torch.Generator().manual_seed(index)
        size, classes = self.spec.size or (), self.spec.num_classes
        dates = (2,) if self.spec.kind == 'change' else ()
        sample: Sample = {'image': torch.rand(*dates, self.spec.bands, *size, generator=rng), 'file': f'{index}.tif'}
        if self.spec.kind in ('segmentation', 'change'):
            shape = (1, *size) if self.spec.kind == 'change' else size
            sample['mask'] = torch.randint(0, classes, shape, generator=rng)
        else:
            sample['label'] = torch.randint(0, classes, (), generator=rng)
        return self.spoil(index, sample)


def own(kind: Kind, length: int = 23) -> Own:
    classes = CLASSES[:2] if kind == 'change' else CLASSES
    return Own(SampleSpec(kind, 5, classes, size=None if kind == 'spectrum' else (6, 4)), length)


SLOW = {'count': 60, 'labels': 'uniform', 'chunk': 5, 'shard_bytes': 5 * 48}  # 12 shards of one chunk


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def launched(action: Callable[[Fabric], Any]) -> None:
    """Run in two processes that know of each other."""
    torch.set_num_threads(1)
    Fabric(accelerator='cpu', devices=2, strategy='ddp_fork').launch(action)


def edit_record(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    record = json.loads((root / 'bank.json').read_text())
    change(record)
    (root / 'bank.json').write_text(json.dumps(record))


def rewrite(root: Path, number: int, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Another content for a shard, with a record that says its size and checksums."""
    path = root / f'shard-{number:05d}.safetensors'
    tensors = change(without_tables(load_file(path)))
    blocks = {key: Blocks.of(value.dtype, tuple(value.shape[1:])) for key, value in tensors.items()}
    tables = {key: blocks[key].digests(as_items(v), range(blocks[key].number(len(v)))) for key, v in tensors.items()}
    root_digest = MappedShard({}, tables).root
    if json.loads((root / 'bank.json').read_text())['shards'][number].get('blocks') is not None:
        tensors |= {f'{key}.sha256': torch.from_numpy(table.copy()) for key, table in tables.items()}
        edit_record(root, lambda r: r['shards'][number].update(blocks=root_digest))
    save_file(tensors, path)
    edit_record(root, lambda r: r['shards'][number].update(bytes=path.stat().st_size, sha256=checksum(path)))


def without_tables(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not key.endswith('.sha256')}


def to_format_2(root: Path) -> None:
    """The bank as earlier versions wrote it: the record has checksums of whole files too."""
    for number in range(len(list(root.glob('shard-*')))):
        path = root / f'shard-{number:05d}.safetensors'
        edit_record(root, lambda r, n=number, p=path: r['shards'][n].update(sha256=checksum(p)))  # type: ignore[misc]
    edit_record(root, lambda record: record.update(format=2))


def to_format_1(root: Path) -> None:
    """The bank as earlier versions wrote it: no checksums in shards."""
    for number in range(len(list(root.glob('shard-*')))):
        if (root / 'bank.json').exists():
            edit_record(root, lambda r, n=number: r['shards'][n].pop('blocks'))  # type: ignore[misc]
            rewrite(root, number, lambda tensors: tensors)
        else:
            path = root / f'shard-{number:05d}.safetensors'
            save_file(without_tables(load_file(path)), path)
    for name in ('bank.json', 'bank.writing.json'):
        if (root / name).exists():
            (root / name).write_text(json.dumps({**json.loads((root / name).read_text()), 'format': 1}))
