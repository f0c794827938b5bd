"""Costs of mixing: loading, training steps, reading and writing a bank, live draws, starting with many samples.

    python benchmarks/speed_mixing.py --threads 2 --out benchmarks/results/speed_mixing_cpu.json
    python benchmarks/speed_mixing.py --device cuda --out benchmarks/results/speed_mixing_cuda.json

loader: batches of 256 from 20,000 spectra of 200 bands at ratio 0.5 with a bank, one process, one epoch per block;
against torch's ConcatDataset of both sides, in memory, with a weighted sampler. The real samples are plain datasets.
step: a training step of SegFormer-B0 on 64 x 64 x 100 patches, from the loader to the optimiser. Real patches alone
come from a memory-mapped file through the same loader; the other side has equally many samples in a batch, half of
them from a bank (ratio 1). The kornia container flips on both sides, since its users have one anyway.
throughput: batches of a bank against indexing a memory-mapped tensor, one array with rows of equal size.
live: live draws of a spectral GAN by SyntheticMix at ratio 1, in a step of NN-1D on 64 spectra, and, for comparison,
64 drawn spectra in addition to a step of SegFormer-B0.
open: writing a bank, opening it in a fresh process, and reading it at random in four loader workers. Linux only.

write: a bank from a dataset in memory, against the same values by numpy.save and fsync.
long: the first batch of a mixture of ten million real spectra, in a fresh process and its workers. Linux only.

The two sides of a comparison are timed in interleaved blocks A B B A, and the ratio is taken per pair. A block begins
with a few untimed steps, which use up prefetched batches. Files are written to a temporary folder, about 2.5 GB (with
--quick 0.4 GB), and stay in the page cache.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import kornia.augmentation as K
import numpy as np
import torch
from measure import clocks, interleaved, launches, machine, milliseconds, options, paired, parsed, ratios, summary
from open_bank import begin, opened
from processes import in_fresh_process
from segmentation_models_pytorch import Segformer
from speed_data import CLASSES, PATCHES, SPECTRA, Files, InMemory, Mapped, Noise, Runs, pieces
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler, WeightedRandomSampler

from hsiaug.datasets import MixedDataset, write_bank
from hsiaug.models import NN1D
from hsiaug.records import write_json
from hsiaug.samplers import MixedBatchSampler
from hsiaug.samples import Sample
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms import SyntheticMix
from hsiaug.transforms.kornia import RandomSyntheticMix

PARTS = ('loader', 'step', 'throughput', 'live', 'open', 'write', 'long')
PACKAGES = ('numpy', 'torchgeo', 'kornia', 'segmentation-models-pytorch', 'safetensors')
EPOCH = 1_000_000  # samples, so that no epoch begins within a block
AHEAD = 5  # untimed steps of a block; two workers load four batches ahead
Result = dict[str, Any]
Step = Callable[[], object]


@dataclass(frozen=True)
class Scale:
    """Amount of work.

    Args:
        pairs: blocks of each side of a comparison.
        steps: training steps of a block.
        patches: number in the file and in the bank.
        spectra: number in the file and in the bank.
        reads: batches of 1024 spectra that four workers read.
        openings: fresh processes that open the bank.
        written: spectra of a bank to write.
    """

    pairs: int = 20
    steps: int = 20
    patches: int = 125
    spectra: int = 1_000_000
    reads: int = 1000
    openings: int = 5
    written: int = 400_000


QUICK = Scale(pairs=2, steps=3, patches=32, spectra=100_000, reads=100, openings=2, written=50_000)


# --- comparisons ------------------------------------------------------------------------------------------------------


def compare(
    plain: Step, other: Step, steps: int, pairs: int, device: str, at_most: float | None = None,
    names: tuple[str, str] = ('plain', 'mixed'),
) -> Result:  # fmt: skip
    """Milliseconds per step of both sides, and the ratio of the second to the first, pair by pair."""

    def block(step: Step) -> float:
        milliseconds(step, AHEAD, device)
        return milliseconds(step, steps, device)

    blocks = {name: partial(block, step) for name, step in zip(names, (plain, other), strict=True)}
    return paired(blocks, pairs, at_most, warm=True)


def compare_clocks(plain: Step, other: Step, pairs: int) -> Result:
    """Speed of the second side relative to the first: wall and processor time of both, and throughput by each."""
    plain(), other()
    times = interleaved({'plain': partial(clocks, plain), 'other': partial(clocks, other)}, pairs)
    result: Result = {}
    for k, clock in enumerate(('wall', 'cpu')):
        first, second = ([time[k] for time in side] for side in times.values())
        result |= {f's_plain_{clock}': summary(first), f's_{clock}': summary(second)}
        result[f'throughput_{clock}'] = ratios(second, first)
    return result


class Training:
    """A training step of a network on batches of the sample contract."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self.network, self.device = network.to(device).train(), device
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def to_device(self, batch: Sample) -> Sample:
        """The batch, on the device of the network."""
        return {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}

    def __call__(self, batch: Sample) -> None:
        """Forward, loss, backward, optimiser."""
        # kornia adds a channel to masks
        target = batch['label'] if 'label' in batch else batch['mask'].reshape(-1, *batch['mask'].shape[-2:])
        loss = cross_entropy(self.network(batch['image']), target)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Limit torch to a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def segformer(device: str) -> Training:
    """SegFormer-B0 for 100 bands."""
    return Training(Segformer('mit_b0', in_channels=100, classes=len(CLASSES), encoder_weights=None), device)


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Batches without an end."""
    while True:
        yield from loader


def measure_step(files: Files, scale: Scale, device: str) -> Result:
    """A step on real patches alone against one on real and synthetic patches, for each way in."""
    size = 4 if device == 'cpu' else 16
    bank, path = files.patches
    real, training = Mapped(path, PATCHES, EPOCH), segformer(device)
    mixed = MixedDataset(real, bank, ratio=1.0, replacement=True)
    mix = SyntheticMix(bank, ratio=1.0, replacement=True).train()
    flip = K.RandomHorizontalFlip()
    plain_container = K.AugmentationSequential(flip, data_keys=None)
    container = K.AugmentationSequential(RandomSyntheticMix(bank, ratio=1.0), flip, data_keys=None)

    def step(dataset: Dataset[Sample], workers: int, change: Callable[[Sample], Sample] = lambda batch: batch) -> Step:
        if dataset is mixed:
            order: Result = {'batch_sampler': MixedBatchSampler(mixed, size)}
        else:
            order = {'batch_size': size, 'sampler': RandomSampler(real)}
        if workers:
            order |= {'num_workers': workers, 'persistent_workers': True, 'multiprocessing_context': 'fork'}
        batches = endless(DataLoader(dataset, pin_memory=device != 'cpu', **order))
        return lambda: training(change(training.to_device(next(batches))))

    ways = {
        'MixedDataset and MixedBatchSampler': (step(real, 0), step(mixed, 0)),
        'MixedDataset and MixedBatchSampler, 2 workers': (step(real, 2), step(mixed, 2)),
        'SyntheticMix': (step(real, 0), step(real, 0, mix)),
        'RandomSyntheticMix in kornia': (step(real, 0, plain_container), step(real, 0, container)),
    }
    results: Result = {'batch_size': size}
    for name, (plain, other) in ways.items():
        results[name] = compare(plain, other, scale.steps, scale.pairs, device, at_most=1.02)
    return results


def measure_loader(folder: Path, scale: Scale) -> Result:
    """Epochs of each way of mixing against those of ConcatDataset, without and with transforms."""
    real, synthetic = InMemory(SPECTRA, 20_000), InMemory(SPECTRA, 10_000, seed=1)
    bank = write_bank(Runs(SPECTRA, 10_000, seed=1), None, folder / 'loaded')

    def epoch(dataset: Dataset[Sample], change: Callable[[Sample], Sample] | None = None, **order: Any) -> Step:
        loader = DataLoader(dataset, **(order or {'batch_size': 256, 'shuffle': True}))

        def read() -> None:
            for batch in loader:
                if change is not None:
                    change(batch)

        return read

    def concatenated(transforms: Callable[[Sample], Sample] | None = None) -> Step:
        sides = (
            [real, synthetic] if transforms is None else [Transformed(side, transforms) for side in (real, synthetic)]
        )
        weights = torch.cat(
            [torch.full((len(real),), 1 / len(real)), torch.full((len(synthetic),), 0.5 / len(synthetic))]
        )
        sampler = WeightedRandomSampler(weights.tolist(), len(real) + len(synthetic))
        return epoch(ConcatDataset(sides), batch_size=256, sampler=sampler)

    mixed, changed = (MixedDataset(real, bank, 0.5, transforms=change) for change in (None, scaled))
    mix = SyntheticMix(bank, 0.5, replacement=True).train()
    ways = {
        'MixedDataset and MixedBatchSampler': (None, epoch(mixed, batch_sampler=MixedBatchSampler(mixed, 256))),
        'MixedDataset, shuffle=True': (None, epoch(mixed)),
        'MixedDataset and MixedBatchSampler, transforms': (
            scaled, epoch(changed, batch_sampler=MixedBatchSampler(changed, 256))),
        'a plain loader': (None, epoch(real)),
        'SyntheticMix on a plain loader': (None, epoch(real, mix)),
    }  # fmt: skip
    results: Result = {}
    for name, (transforms, way) in ways.items():
        results[name] = compare_clocks(concatenated(transforms), way, scale.pairs)
        samples = 20_000 if 'plain' in name else 30_000
        if samples == 20_000:  # shorter epoch
            for clock in ('wall', 'cpu'):
                found = results[name][f'throughput_{clock}']
                results[name][f'throughput_{clock}'] = {key: round(value * 2 / 3, 4) for key, value in found.items()}
    fast = results['MixedDataset and MixedBatchSampler']
    return results | {'goal': 'at least 0.95', 'met': fast['throughput_cpu']['median'] >= 0.95}


class Transformed(Dataset[Sample]):
    """A dataset with a transform."""

    def __init__(self, inner: InMemory, change: Callable[[Sample], Sample]) -> None:
        self.inner, self.change = inner, change

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Sample:
        return self.change(self.inner[index])


def scaled(sample: Sample) -> Sample:
    """A typical transform."""
    return {**sample, 'image': sample['image'] * 0.5}


def measure_write(folder: Path, scale: Scale) -> Result:
    """A bank against .npy files of the same values, both synced to disk."""
    results: Result = {}
    for name, data in (('spectra', Runs(SPECTRA, scale.written)), ('patches', Runs(PATCHES, scale.written // 2000))):
        root = folder / 'written'

        def arrays(data: Runs = data) -> None:
            with (folder / 'written.npy').open('wb') as file:
                np.save(file, data.image.numpy())
                np.save(file, data.label.numpy())
                file.flush()
                os.fsync(file.fileno())

        def bank(data: Runs = data, root: Path = root) -> None:
            shutil.rmtree(root, ignore_errors=True)
            write_bank(data, None, root)

        results[name] = {'mb': round((data.image.nbytes + data.label.nbytes) / 1e6)}
        results[name] |= compare_clocks(arrays, bank, max(2, scale.pairs // 3))
        results[name] |= {'goal': 'at least 0.7', 'met': results[name]['throughput_wall']['median'] >= 0.7}
    return results


def measure_long(folder: Path) -> Result:
    """Ten million real spectra with a bank and with a generator; a fresh process reports time and memory."""
    root = write_bank(Runs(SPECTRA, 10_000, seed=1), None, folder / 'beside').root
    results: Result = {'goal': 'at most 2 s and 100 MB'}
    for source, ratio, workers in product(('bank', 'generator'), (0.5, 5.0), (0, 2)):
        found = in_fresh_process(begin, root, ratio, source == 'generator', workers)
        results[f'{source}, ratio {ratio:g}, {workers} workers'] = found
    largest = {key: max(r[key] for r in results.values() if isinstance(r, dict)) for key in ('seconds', 'mb')}
    return results | {'largest': largest, 'met': largest['seconds'] <= 2 and largest['mb'] <= 100}


def measure_throughput(files: Files, scale: Scale) -> Result:
    """Random batches of a bank against the index of one memory-mapped tensor, on the CPU.

    With one thread, like loader workers, and with all: torch splits indexing among them, whether that pays or not.
    """
    results: Result = {}
    rng = np.random.default_rng(0)
    cases = [('patches', files.patches, PATCHES, (16,)), ('spectra', files.spectra, SPECTRA, (64, 256, 1024))]
    for name, (bank, path), spec, sizes in cases:
        table = torch.from_numpy(Mapped(path, spec, len(bank)).rows)
        for start in range(0, len(bank), bank.shard_size):  # both mappings complete
            table[start : start + bank.shard_size].sum()
        for _ in pieces(bank):
            pass
        row_bytes = table.shape[1] * table.itemsize
        for size, threads in product(sizes, sorted({1, torch.get_num_threads()})):
            draw = partial(rng.integers, len(bank), size=size)
            from_table = lambda draw=draw, table=table: table[torch.from_numpy(draw())]  # noqa: E731
            from_bank = lambda draw=draw, bank=bank: bank.batch(draw())  # noqa: E731
            steps = max(10, 20_000_000 // (size * row_bytes))
            with limited(threads):
                found = compare(from_table, from_bank, steps, scale.pairs, 'cpu', 1.25, ('table', 'bank'))
            speed = round(size * row_bytes / found['ms_bank']['median'] / 1e6, 4)
            results[f'{name}, batch {size}, threads {threads}'] = {**found, 'gb_per_s_bank': speed}
    return results


def measure_live(scale: Scale, device: str) -> Result:
    """Steps with and without spectra drawn live from a spectral GAN."""
    data = Noise(SPECTRA, 1024).batch([0] * 1024)
    x, y = data['image'].cumsum(dim=1) / SPECTRA.bands, data['label']
    source = fit_generator('spectral_gan', TrainingData(SPECTRA, x, y, x[:0], x[:0], y[:0]), {'iterations': 3})
    mix = SyntheticMix(source.to(device), ratio=1.0).train()
    x, y = x.to(device), y.to(device)
    training = Training(NN1D(SPECTRA.bands, len(CLASSES)), device)
    on_patches = segformer(device)
    images = {'image': torch.rand(4 if device == 'cpu' else 16, 100, 64, 64, device=device)}
    images['mask'] = torch.randint(len(CLASSES), (len(images['image']), 64, 64), device=device)

    def batch(size: int) -> Sample:
        rows = torch.randint(len(x), (size,), device=device)
        return {'image': x[rows], 'label': y[rows]}

    spectra = batch(128)

    def with_spectra() -> None:
        mix(spectra)
        on_patches(images)

    # SyntheticMix draws chunks of 1024: a block holds whole ones, 16 steps of 64 spectra or 32 steps of 32.
    goals = (None, None) if device == 'cpu' else (1.05, 1.25)
    pairs = max(2, scale.pairs // 2)
    large = compare(lambda: on_patches(images), with_spectra, 16, pairs, device, goals[0])
    own = compare(
        lambda: training(batch(64)), lambda: training(mix(batch(64))), 32 * scale.steps, pairs, device, goals[1]
    )
    return {
        'generator': dict(source.settings),
        'launches': {
            'a step of SegFormer-B0': launches(lambda: on_patches(images), device),
            'a step of NN-1D': launches(lambda: training(batch(64)), device),
            'mixing 32 spectra in': launches(lambda: mix(batch(64)), device),
        },
        '64 spectra beside a step of SegFormer-B0': large,
        'a step of NN-1D on 64 spectra': own,
    }


def measure_open(files: Files, scale: Scale) -> Result:
    """Write, open and read a bank of many spectra."""
    bank, _ = files.spectra
    found = [in_fresh_process(opened, bank.root, reads) for reads in (scale.reads, *[0] * (scale.openings - 1))]
    results: Result = {'spectra': len(bank), 'shards': len(bank.shards), 'writing_seconds': files.writing_seconds}
    for field, name, limit in (('ms', 'open_ms', 100), ('rss_mb', 'open_rss_mb', 50)):
        values = summary([one[field] for one in found])
        results[name] = {**values, 'goal': f'at most {limit}', 'met': values['median'] <= limit}
    return results | {'four_workers': found[0]['workers']}


# --- command line -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure and write what was found."""
    parser = options(__doc__)
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--quick', action='store_true', help='see that it runs; its figures are not results')
    parser.add_argument('--tmp', type=Path, default=None, help='where the temporary folder is made')
    args = parsed(parser)
    scale = QUICK if args.quick else Scale()
    result: Result = {'machine': machine(args.device, *PACKAGES)}
    result['scale'] = asdict(scale)
    folder = Path(tempfile.mkdtemp(prefix='hsiaug-speed-', dir=args.tmp))
    try:
        files = Files(folder, scale)
        parts: dict[str, Callable[[], Result]] = {
            'loader': partial(measure_loader, folder, scale),
            'step': partial(measure_step, files, scale, args.device),
            'throughput': partial(measure_throughput, files, scale),
            'live': partial(measure_live, scale, args.device),
            'open': partial(measure_open, files, scale),
            'write': partial(measure_write, folder, scale),
            'long': partial(measure_long, folder),
        }
        for name in args.parts:
            result[name] = parts[name]()
            print(json.dumps({name: result[name]}, indent=2), flush=True)
    finally:
        shutil.rmtree(folder)
    if args.out:
        write_json(args.out, result)


if __name__ == '__main__':
    main()
