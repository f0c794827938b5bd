"""What mixing costs: training steps, reading a bank, drawing live, opening a bank of a million spectra.

    python benchmarks/speed_mixing.py --threads 2 --out benchmarks/results/speed_mixing_cpu.json
    python benchmarks/speed_mixing.py --device cuda --out benchmarks/results/speed_mixing_cuda.json

step: a training step of SegFormer-B0 on 64 x 64 x 100 patches, from the loader to the optimiser. Real patches alone
come out of a memory-mapped file through the same loader setting; the other side has as many samples in a batch, half
of them from a bank (ratio 1). The kornia container flips on both sides: who uses one has it anyway.
throughput: batches of a bank against the index of a memory-mapped tensor, one array, whose rows have as many bytes.
live: a spectral GAN drawn live by SyntheticMix at ratio 1, in a step of NN-1D on 64 spectra, and, for the scale of it,
64 drawn spectra beside a step of SegFormer-B0.
open: writing a bank, opening it in a fresh process, and reading it at random in four loader workers. Linux only.

The two sides of a comparison are timed in interleaved blocks A B B A, and the ratio is taken per pair. A block begins
with a few untimed steps, which use up what workers have loaded ahead. Files are written to a temporary folder, about
2.5 GB (with --quick 0.4 GB), and stay in the page cache.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import kornia.augmentation as K
import numpy as np
import torch
from measure import interleaved, machine, milliseconds, summary
from segmentation_models_pytorch import Segformer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchgeo.datasets import NonGeoDataset

from hsiaug.datasets import MixedDataset, SyntheticBank, write_bank
from hsiaug.models import NN1D
from hsiaug.records import write_json
from hsiaug.samplers import MixedBatchSampler
from hsiaug.samples import Sample, SampleSpec
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms import SyntheticMix
from hsiaug.transforms.kornia import RandomSyntheticMix

CLASSES = tuple(f'class {k}' for k in range(10))
PATCHES = SampleSpec('segmentation', 100, CLASSES, size=(64, 64))
SPECTRA = SampleSpec('spectrum', 200, CLASSES)
PARTS = ('step', 'throughput', 'live', 'open')
PACKAGES = ('numpy', 'torchgeo', 'kornia', 'segmentation-models-pytorch', 'safetensors')
EPOCH = 1_000_000  # samples: no epoch begins within a block
AHEAD = 5  # untimed steps of a block; two workers load four batches ahead
Result = dict[str, Any]
Step = Callable[[], object]


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Args:
        pairs: blocks of each side of a comparison.
        steps: training steps of a block.
        patches: in the file and in the bank.
        spectra: in the file and in the bank.
        reads: batches of 1024 spectra that four workers read.
        openings: fresh processes that open the bank.
    """

    pairs: int = 20
    steps: int = 20
    patches: int = 125
    spectra: int = 1_000_000
    reads: int = 1000
    openings: int = 5


QUICK = Scale(pairs=2, steps=3, patches=32, spectra=100_000, reads=100, openings=2)


# --- data -------------------------------------------------------------------------------------------------------------


class Noise(NonGeoDataset):
    """Random samples; speed does not depend on what they show."""

    def __init__(self, spec: SampleSpec, length: int) -> None:
        self.spec, self.length = spec, length

    def __len__(self) -> int:
        return self.length

    def batch(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Samples of several indices; the first index is the seed."""
        rng = torch.Generator().manual_seed(int(rows[0]))
        size = self.spec.size or ()
        image = torch.rand((len(rows), self.spec.bands, *size), generator=rng)
        target = torch.randint(self.spec.num_classes, (len(rows), *size), generator=rng)
        return {'image': image, 'mask' if size else 'label': target}

    def __getitem__(self, index: int) -> Sample:
        return {key: value[0] for key, value in self.batch([index]).items()}


class Mapped(NonGeoDataset):
    """Samples of a memory-mapped file, over and over: a real dataset with an epoch of any length.

    Args:
        path: file of rows of float32, each an image and its int64 target.
        spec: of the samples.
        length: samples of an epoch.
    """

    def __init__(self, path: Path, spec: SampleSpec, length: int) -> None:
        self.spec, self.length = spec, length
        self.shape = (spec.bands, *(spec.size or ()))
        values, targets = math.prod(self.shape), math.prod(spec.size or ())
        self.values, self.target = values, 'mask' if spec.size else 'label'
        self.rows = np.memmap(path, np.float32, mode='c').reshape(-1, values + 2 * targets)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index % len(self.rows)]
        target = row[self.values :].view(np.int64).reshape(self.spec.size or ())
        image = row[: self.values].reshape(self.shape)
        return {'image': torch.from_numpy(image), self.target: torch.from_numpy(np.asarray(target))}


class Files:
    """A bank and a memory-mapped file of the same bytes, for each kind of sample, written when first asked for."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder, self.scale = folder, scale

    @cached_property
    def patches(self) -> tuple[SyntheticBank, Path]:
        """100 bands, 64 x 64."""
        return self._write('patches', PATCHES, self.scale.patches)

    @cached_property
    def spectra(self) -> tuple[SyntheticBank, Path]:
        """200 bands."""
        return self._write('spectra', SPECTRA, self.scale.spectra)

    def _write(self, name: str, spec: SampleSpec, count: int) -> tuple[SyntheticBank, Path]:
        start = time.perf_counter()
        bank = write_bank(Noise(spec, count), None, self.folder / name)
        self.writing_seconds = round(time.perf_counter() - start, 2)
        path = self.folder / f'{name}.rows'
        with path.open('wb') as file:
            for batch in pieces(bank):
                columns = [value.numpy().reshape(len(value), -1).view(np.float32) for value in batch.values()]
                np.concatenate(columns, axis=1).tofile(file)
        return bank, path


def pieces(bank: SyntheticBank) -> Iterator[dict[str, Tensor]]:
    """All of a bank, shard by shard."""
    for start in range(0, len(bank), bank.shard_size):
        yield bank.batch(range(start, min(start + bank.shard_size, len(bank))))


# --- comparisons ------------------------------------------------------------------------------------------------------


def compare(plain: Step, other: Step, steps: int, pairs: int, device: str) -> tuple[list[float], list[float]]:
    """Milliseconds per step of both sides, pair by pair."""

    def block(step: Step) -> float:
        milliseconds(step, AHEAD, device)
        return milliseconds(step, steps, device)

    return interleaved(partial(block, plain), partial(block, other), pairs)


def cost(times: tuple[list[float], list[float]], at_most: float | None) -> Result:
    """How much longer the second side takes."""
    ratio = summary([other / plain for plain, other in zip(*times, strict=True)])
    result: Result = {'ms_plain': summary(times[0]), 'ms_mixed': summary(times[1]), 'ratio': ratio}
    if at_most is not None:
        result |= {'goal': f'at most {at_most}', 'met': ratio['median'] <= at_most}
    return result


class Training:
    """A training step of a network on batches of the sample contract."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self.network, self.device = network.to(device).train(), device
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def to_device(self, batch: Sample) -> Sample:
        """The batch where the network is."""
        return {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}

    def __call__(self, batch: Sample) -> None:
        """Forward, loss, backward, optimiser."""
        # kornia gives masks a channel
        target = batch['label'] if 'label' in batch else batch['mask'].reshape(-1, *batch['mask'].shape[-2:])
        loss = cross_entropy(self.network(batch['image']), target)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Have torch use so many threads meanwhile."""
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
        results[name] = cost(compare(plain, other, scale.steps, scale.pairs, device), at_most=1.02)
    return results


def measure_throughput(files: Files, scale: Scale) -> Result:
    """Random batches of a bank against the index of one memory-mapped tensor, on the CPU.

    With one thread, as loader workers have it, and with all: torch divides the index among them, if that pays or not.
    """
    results: Result = {}
    rng = np.random.default_rng(0)
    cases = [('patches', files.patches, PATCHES, (16,)), ('spectra', files.spectra, SPECTRA, (64, 256, 1024))]
    for name, (bank, path), spec, sizes in cases:
        table = torch.from_numpy(Mapped(path, spec, len(bank)).rows)
        for start in range(0, len(bank), bank.shard_size):  # both mappings fully in place
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
                table_ms, bank_ms = compare(from_table, from_bank, steps, scale.pairs, 'cpu')
            ratio = summary([plain / other for plain, other in zip(table_ms, bank_ms, strict=True)])
            results[f'{name}, batch {size}, threads {threads}'] = {
                'ms_table': summary(table_ms),
                'ms_bank': summary(bank_ms),
                'gb_per_s_bank': summary([size * row_bytes / ms / 1e6 for ms in bank_ms]),
                'throughput_ratio': ratio,
                'goal': 'at least 0.8',
                'met': ratio['median'] >= 0.8,
            }
    return results


def measure_live(scale: Scale, device: str) -> Result:
    """Steps with and without spectra that a spectral GAN draws meanwhile."""
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

    def beside() -> None:
        mix(spectra)
        on_patches(images)

    # SyntheticMix draws chunks of 1024: a block holds whole ones, 16 steps of 64 spectra or 32 steps of 32.
    goals = (None, None) if device == 'cpu' else (1.05, 1.25)
    pairs = max(2, scale.pairs // 2)
    large = compare(lambda: on_patches(images), beside, 16, pairs, device)
    own = compare(lambda: training(batch(64)), lambda: training(mix(batch(64))), 32 * scale.steps, pairs, device)
    return {
        'generator': dict(source.settings),
        '64 spectra beside a step of SegFormer-B0': cost(large, goals[0]),
        'a step of NN-1D on 64 spectra': cost(own, goals[1]),
    }


def measure_open(files: Files, scale: Scale) -> Result:
    """Write, open and read a bank of many spectra."""
    bank, _ = files.spectra
    opened = []
    for reads in (scale.reads, *[0] * (scale.openings - 1)):
        command = [sys.executable, str(Path(__file__).with_name('open_bank.py')), str(bank.root), '--reads', str(reads)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        opened.append(json.loads(run.stdout.splitlines()[-1]))
    results: Result = {'spectra': len(bank), 'shards': len(bank.shards), 'writing_seconds': files.writing_seconds}
    for field, name, limit in (('ms', 'open_ms', 100), ('rss_mb', 'open_rss_mb', 50)):
        values = summary([o[field] for o in opened])
        results[name] = {**values, 'goal': f'at most {limit}', 'met': values['median'] <= limit}
    return results | {'four_workers': opened[0]['workers']}


# --- command line -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--quick', action='store_true', help='see that it runs; its figures are no result')
    parser.add_argument('--tmp', type=Path, default=None, help='where the temporary folder is made')
    parser.add_argument('--out', type=Path, default=None, help='JSON file')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    scale = QUICK if args.quick else Scale()
    result: Result = {'machine': machine(args.device, *PACKAGES)}
    result['scale'] = asdict(scale)
    folder = Path(tempfile.mkdtemp(prefix='hsiaug-speed-', dir=args.tmp))
    try:
        files = Files(folder, scale)
        parts: dict[str, Callable[[], Result]] = {
            'step': partial(measure_step, files, scale, args.device),
            'throughput': partial(measure_throughput, files, scale),
            'live': partial(measure_live, scale, args.device),
            'open': partial(measure_open, files, scale),
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
