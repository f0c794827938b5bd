"""Mixing of real and synthetic samples at a ratio in hsiaug and other libraries: speed and exactness.

    python -m venv mixers && mixers/bin/pip install .
    mixers/bin/pip install litdata mosaicml-streaming datasets torchdata  # Streaming needs an older numpy
    mixers/bin/python benchmarks/mixers.py --out benchmarks/results/mixers

20,000 real spectra of 200 bands with their labels, as many synthetic ones, ratio 0.5, batches of 256 in one process
without workers. Each library reads its own format: litdata and Streaming from chunks on disk that they wrote
themselves, Hugging Face from an Arrow table, the others from tensors in memory; hsiaug also from a bank. Nothing is
trained.

Speed: each library and a plain loader of the real samples are timed in turn, A B B A, in blocks of 40 batches after a
few untimed ones, with a new epoch for each block. Samples per second and CPU time of all threads are given as ratios
to the plain loader's in the same pair, medians and quartiles.

Exactness, over one epoch of 30,000 samples (or as long as the library makes it): the synthetic share of the epoch, and
the smallest and largest share of a batch, where a third was asked for; and the share of real samples that occurred.

Libraries that are not installed are left out, and named in the record.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import clocks, interleaved, machine, ratios, summary
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, WeightedRandomSampler, default_collate
from torchgeo.datasets import NonGeoDataset

from hsiaug import MixedBatchSampler, MixedDataset, SampleSpec, SyntheticMix, write_bank
from hsiaug.records import write_json

N, BANDS, BATCH, RATIO = 20_000, 200, 256, 0.5
SHARE = RATIO / (1 + RATIO)
CLASSES = tuple(f'class {k}' for k in range(10))
PACKAGES = ('numpy', 'torchgeo', 'litdata', 'mosaicml-streaming', 'datasets', 'torchdata')
Batch = Mapping[str, Any]
Loader = Callable[[int], Iterable[Batch]]
"""The batches of an epoch."""


class Spectra(NonGeoDataset):
    """Spectra whose last band identifies them: i from 0 for real ones, -1 - i for synthetic ones."""

    spec = SampleSpec('spectrum', BANDS, CLASSES, unit='reflectance')

    def __init__(self, synthetic: bool) -> None:
        rng = torch.Generator().manual_seed(int(synthetic))
        self.image = torch.rand(N, BANDS, generator=rng)
        self.image[:, -1] = torch.arange(N) if not synthetic else -1 - torch.arange(N)
        self.label = torch.randint(10, (N,), generator=rng)

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'image': self.image[index], 'label': self.label[index]}


# --- the libraries ----------------------------------------------------------------------------------------------------


def plain(real: Spectra, synthetic: Spectra, folder: Path) -> Loader:
    """Real samples only."""
    loader = DataLoader(real, BATCH, shuffle=True)
    return lambda epoch: loader


def concat(real: Spectra, synthetic: Spectra, folder: Path) -> Loader:
    """PyTorch's own parts."""
    both: Dataset[Any] = ConcatDataset([real, synthetic])
    weights = [1.0] * N + [RATIO] * N
    loader = DataLoader(both, BATCH, sampler=WeightedRandomSampler(weights, round(N * (1 + RATIO))))
    return lambda epoch: loader


def mixed(real: Spectra, synthetic: Any, folder: Path) -> Loader:
    """hsiaug, a dataset as the source."""
    sampler = MixedBatchSampler(MixedDataset(real, synthetic, RATIO, different_scales=True), BATCH)
    loader = DataLoader(sampler.dataset, batch_sampler=sampler)

    def epoch_of(epoch: int) -> Iterable[Batch]:
        sampler.set_epoch(epoch)
        return loader

    return epoch_of


def mixed_bank(real: Spectra, synthetic: Spectra, folder: Path) -> Loader:
    """hsiaug, a bank on disk as the source."""
    return mixed(real, write_bank(synthetic, None, folder / 'bank'), folder)


def batches(real: Spectra, synthetic: Spectra, folder: Path) -> Loader:
    """hsiaug, into the batches of the plain loader."""
    mix = SyntheticMix(synthetic, RATIO, 'append', real=real, different_scales=True)
    loader = DataLoader(real, BATCH, shuffle=True)

    def epoch_of(epoch: int) -> Iterator[Batch]:
        mix.set_epoch(epoch)
        return map(mix, loader)

    return epoch_of


def huggingface(real: Spectra, synthetic: Spectra, folder: Path) -> Loader:
    """Hugging Face's interleave_datasets."""
    from datasets import Dataset as Table
    from datasets import interleave_datasets

    tables = [Table.from_dict({'image': one.image.numpy(), 'label': one.label.numpy()}) for one in (real, synthetic)]

    def epoch_of(epoch: int) -> Iterable[Batch]:
        order = interleave_datasets(
            tables, probabilities=[1 - SHARE, SHARE], seed=epoch, stopping_strategy='first_exhausted'
        )
        return DataLoader(order.with_format('torch'), BATCH, shuffle=True)

    return epoch_of


def torchdata(real: Spectra, synthetic: Spectra, folder: Path) -> Loader:
    """The MultiNodeWeightedSampler of torchdata."""
    from torch.utils.data import RandomSampler
    from torchdata import nodes

    def node(dataset: Spectra) -> Any:
        return nodes.MapStyleWrapper(map_dataset=dataset, sampler=RandomSampler(dataset))

    weights = {'real': 1.0, 'synthetic': RATIO}
    pair = {'real': node(real), 'synthetic': node(synthetic)}
    samples = nodes.MultiNodeWeightedSampler(pair, weights, stop_criteria='FIRST_DATASET_EXHAUSTED')
    loader = nodes.Loader(nodes.Mapper(nodes.Batcher(samples, BATCH, drop_last=False), default_collate))
    return lambda epoch: loader


def streaming(real: Spectra, synthetic: Spectra, folder: Path) -> Loader:
    """MosaicML Streaming, which can stratify its batches."""
    from streaming import MDSWriter, Stream, StreamingDataset

    streams = []
    for name, one, share in (('real', real, 1 - SHARE), ('synthetic', synthetic, SHARE)):
        with MDSWriter(out=str(folder / name), columns={'image': f'ndarray:float32:{BANDS}', 'label': 'int64'}) as out:
            for image, label in zip(one.image.numpy(), one.label.tolist(), strict=True):
                out.write({'image': image, 'label': np.int64(label)})
        streams.append(Stream(local=str(folder / name), proportion=share))
    dataset = StreamingDataset(
        streams=streams, batch_size=BATCH, shuffle=True, epoch_size=round(N * (1 + RATIO)), batching_method='stratified'
    )
    loader = DataLoader(dataset, BATCH)
    return lambda epoch: loader


def litdata(real: Spectra, synthetic: Spectra, folder: Path) -> Loader:
    """The CombinedStreamingDataset of litdata."""
    from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    parts = []
    for name, one in (('lit_real', real), ('lit_synthetic', synthetic)):
        (folder / name).mkdir()
        writer = BinaryWriter(str(folder / name), chunk_bytes='16MB')
        for row in range(N):
            writer[row] = one[row]
        writer.done()
        writer.merge()
        parts.append(StreamingDataset(str(folder / name), shuffle=True))
    both = CombinedStreamingDataset(parts, weights=[1 - SHARE, SHARE], iterate_over_all=False)
    loader = StreamingDataLoader(both, batch_size=BATCH, num_workers=0)
    return lambda epoch: loader


LIBRARIES: dict[str, tuple[Callable[[Spectra, Any, Path], Loader], str | None]] = {
    'hsiaug MixedDataset and MixedBatchSampler': (mixed, None),
    'the same, synthetic samples from a bank': (mixed_bank, None),
    'hsiaug SyntheticMix': (batches, None),
    'ConcatDataset and WeightedRandomSampler': (concat, None),
    'torchdata MultiNodeWeightedSampler': (torchdata, 'torchdata'),
    'Hugging Face interleave_datasets': (huggingface, 'datasets'),
    'MosaicML Streaming': (streaming, 'mosaicml-streaming'),
    'litdata CombinedStreamingDataset': (litdata, 'litdata'),
}


# --- measurement ------------------------------------------------------------------------------------------------------


def block(loader: Loader, epochs: Iterator[int], count: int) -> tuple[float, float]:
    """Seconds of wall and of CPU time per sample in the next epoch, over ``count`` batches after the first three."""
    iterator, sizes = iter(loader(next(epochs))), list[int]()
    for _ in range(3):
        next(iterator)
    wall, cpu = clocks(lambda: sizes.extend(len(next(iterator)['label']) for _ in range(count)))
    return wall / sum(sizes), cpu / sum(sizes)


def speed(loader: Loader, reference: Loader, pairs: int, count: int) -> dict[str, Any]:
    """Samples per second, and ratios to the reference within each pair."""
    blocks = {
        name: partial(block, of, iter(range(pairs)), count) for name, of in (('own', loader), ('plain', reference))
    }
    times = interleaved(blocks, pairs)
    (own, own_cpu), (base, base_cpu) = (zip(*side, strict=True) for side in times.values())
    return {
        'samples_per_second': summary([1 / wall for wall in own]),
        'samples_per_second_of_plain': summary([1 / wall for wall in base]),
        'speed_to_plain': ratios(own, base),
        'cpu_time_to_plain': ratios(base_cpu, own_cpu),
    }


def exactness(loader: Loader) -> dict[str, Any]:
    """Shares of one epoch, from the last band of its samples."""
    marks = [torch.as_tensor(batch['image'])[:, -1] for batch in loader(1)]
    everything = torch.cat(marks)
    shares = [float((mark < 0).float().mean()) for mark in marks if len(mark) == len(marks[0])]
    return {
        'samples': len(everything),
        'synthetic_share': round(float((everything < 0).float().mean()), 4),
        'least_in_a_batch': round(min(shares), 4),
        'largest_in_a_batch': round(max(shares), 4),
        'real_samples_seen': round(len(everything[everything >= 0].unique()) / N, 4),
        'real_samples_seen_twice': bool((everything[everything >= 0].unique(return_counts=True)[1] > 1).any()),
    }


def table(record: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f'asked for: ratio {RATIO:g}, a synthetic share of {SHARE:.3f}',
        '',
        '| library | samples/s | to a plain loader | CPU time to it | share of an epoch | in a batch | real samples |',
        '|---|---|---|---|---|---|---|',
    ]
    for name, found in record['libraries'].items():
        s, e = found['speed'], found['exactness']
        ratio = s['speed_to_plain']
        twice = ', some twice' if e['real_samples_seen_twice'] else ', each once'
        lines.append(
            f'| {name} | {s["samples_per_second"]["median"]:,.0f} | {ratio["median"]:.2f} [{ratio["q1"]:.2f}, '
            f'{ratio["q3"]:.2f}] | {s["cpu_time_to_plain"]["median"]:.2f} | {e["synthetic_share"]:.4f} | '
            f'{e["least_in_a_batch"]:.3f} to {e["largest_in_a_batch"]:.3f} | {e["real_samples_seen"]:.1%}{twice} |'
        )
    return '\n'.join(lines)


def versions() -> dict[str, str]:
    """Versions of the installed libraries."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Measure, and write ``mixers.json`` and ``table.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, help='folder of the record and the table')
    parser.add_argument('--pairs', type=int, default=12, help='blocks of each side')
    parser.add_argument('--batches', type=int, default=40, help='of a block; at most 75')
    args = parser.parse_args()
    torch.set_num_threads(1)
    installed = versions()
    record: dict[str, Any] = {
        'command': f'python {shlex.join(sys.argv)}',
        'machine': {**machine('cpu'), **installed},
        'settings': {'samples': N, 'bands': BANDS, 'batch': BATCH, 'ratio': RATIO, 'pairs': args.pairs,
                     'batches': args.batches},
        'left_out': [name for name, (_, package) in LIBRARIES.items() if package and package not in installed],
        'libraries': {},
    }  # fmt: skip
    real, synthetic = Spectra(synthetic=False), Spectra(synthetic=True)
    for name, (make, package) in LIBRARIES.items():
        if package and package not in installed:
            continue
        with tempfile.TemporaryDirectory() as folder:
            loader, reference = make(real, synthetic, Path(folder)), plain(real, synthetic, Path(folder))
            found = {'speed': speed(loader, reference, args.pairs, args.batches), 'exactness': exactness(loader)}
        record['libraries'][name] = found
        print(name, json.dumps(found['speed']['speed_to_plain']), json.dumps(found['exactness']), flush=True)
    write_json(args.out / 'mixers.json', record)
    (args.out / 'table.md').write_text(table(record) + '\n')
    print(table(record))


if __name__ == '__main__':
    main()
