"""Memory of tiled super-resolution, and time of a training step against its networks bare.

    python benchmarks/speed_super_resolution.py --out benchmarks/results/speed_super_resolution_cpu.json
    python benchmarks/speed_super_resolution.py --part memory --rows 64                # a strip, in a few minutes

*Memory*: a scene of 600 x 1000 pixels and 87 bands (209 MB) becomes 3000 x 5000 (5.2 GB) in tiles, by MSRResGAN at its
published width and depth; both are memory-mapped files, written to a temporary folder and removed. In its own process,
peak anonymous resident memory (``RssAnon``, which excludes the mapped files) minus that of the imports must stay below
2 GB. It does not depend on the number of rows, but the time does. Linux only.

*Step*: the generator's stage of the training, including drawing, degrading and normalising batches, logging losses and
setting learning rates, against forward, backward and update of the same networks on one batch, in blocks A B B A.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine, milliseconds, options, paired, parsed, publish
from processes import Peak, in_fresh_process, resident_mb
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from hsiaug.engine import Run
from hsiaug.samples import SampleSpec
from hsiaug.systems import TrainingData
from hsiaug.systems.msrresgan.model import MSRResGAN
from hsiaug.systems.msrresgan.network import SRDiscriminator
from hsiaug.systems.msrresgan.train import GeneratorStage, SuperResolutionConfig

HEIGHT, WIDTH, BANDS, FACTOR = 600, 1000, 87, 5
LIMIT_MB = 2000
LIMIT_OVERHEAD = 1.03


# --- memory ---------------------------------------------------------------------------------------------------------


def measure_memory(folder: Path, tile: int, device: str, threads: int) -> dict[str, Any]:
    """Super-resolve the file in this process; returns MB beyond the imports, and seconds."""
    torch.set_num_threads(threads)
    config = SuperResolutionConfig.paper(factor=FACTOR)
    torch.manual_seed(0)
    baseline = resident_mb()
    with Peak() as peak:
        low = torch.from_numpy(np.load(folder / 'low.npy', mmap_mode='c'))
        shape = (len(low), *(FACTOR * side for side in low.shape[1:]))
        high = np.lib.format.open_memmap(folder / 'high.npy', mode='w+', dtype=np.float32, shape=shape)
        spec = SampleSpec('segmentation', BANDS, ('any',), size=(60, 60))
        generator = MSRResGAN(spec, config.network, FACTOR, config.width, config.blocks).eval().to(device)
        generator.super_resolve(low, tile, out=high)
    highest = peak.highest - baseline
    return {
        'shape': list(shape), 'tile': tile, 'baseline_mb': round(baseline), 'peak_mb': round(highest),
        'seconds': round(peak.seconds, 1), 'written': bool(high[:, -1, -1].all()), 'ok': highest < LIMIT_MB,
    }  # fmt: skip


def memory(args: argparse.Namespace) -> dict[str, Any]:
    """Write a scene and measure it in a process of its own."""
    with tempfile.TemporaryDirectory(dir=args.tmp) as folder:
        low = np.lib.format.open_memmap(
            Path(folder) / 'low.npy', mode='w+', dtype=np.float32, shape=(BANDS, args.rows, WIDTH)
        )
        rng = np.random.default_rng(0)
        for band in low:
            band[:] = rng.random(band.shape, dtype=np.float32)
        low.flush()
        return in_fresh_process(measure_memory, Path(folder), args.tile, args.device, args.threads)


# --- training step --------------------------------------------------------------------------------------------------


class Bare:
    """Forward, backward and update of the networks only.

    Args:
        stage: stage of a training with the same networks, which are trained further here.
    """

    def __init__(self, stage: GeneratorStage) -> None:
        self.stage = stage
        self.low, self.high = stage.batch(torch.Generator(stage.device).manual_seed(0))

    def step(self) -> None:
        """One step of the discriminator, and one of the generator."""
        network, discriminator, optimisers = self.stage.network, self.stage.discriminator, self.stage.optimisers
        assert discriminator is not None
        fake = network(self.low)
        scores = [discriminator(image) for image in (self.high, fake.detach())]
        optimisers['discriminator'].zero_grad(set_to_none=True)
        losses = [
            binary_cross_entropy_with_logits(score, torch.full_like(score, truth))
            for score, truth in zip(scores, (1.0, 0.0), strict=True)
        ]
        ((losses[0] + losses[1]) / 2).backward()
        optimisers['discriminator'].step()
        discriminator.requires_grad_(False)
        score = discriminator(fake)
        adversarial = binary_cross_entropy_with_logits(score, torch.ones_like(score))
        optimisers['generator'].zero_grad(set_to_none=True)
        (mse_loss(fake, self.high) + self.stage.config.adversarial * adversarial).backward()
        optimisers['generator'].step()
        discriminator.requires_grad_(True)


def patches(count: int, side: int) -> TrainingData:
    """Random patches; speed does not depend on their content."""
    x = torch.rand((count, BANDS, side, side), generator=torch.Generator().manual_seed(0))
    y = torch.zeros((count, side, side), dtype=torch.int64)
    return TrainingData(SampleSpec('segmentation', BANDS, ('any',), size=(side, side)), x, y, x[:0], x[:0], y[:0])


def training_step(args: argparse.Namespace) -> dict[str, Any]:
    """Time both, and the overhead pair by pair."""
    config = replace(SuperResolutionConfig.paper(), batch_size=args.batch_size)
    data = patches(4 * args.batch_size, args.side)
    torch.manual_seed(0)
    generator = MSRResGAN(data.spec, config.network, config.factor, config.width, config.blocks)
    generator.observe(data)
    generator.to(args.device)
    discriminator = SRDiscriminator(BANDS, (args.side, args.side), config.discriminator_width).to(args.device)
    stage = GeneratorStage(generator, discriminator, None, config, 0)

    def ours() -> float:
        """A block of the training's own loop, including its final check of all weights."""
        start = time.perf_counter()
        stage.steps = stage.step + args.iterations
        stage.run(Run())
        if args.device != 'cpu':
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / args.iterations * 1e3

    theirs = partial(milliseconds, Bare(stage).step, args.iterations, args.device)
    found = paired({'bare': theirs, 'training': ours}, args.pairs, at_most=LIMIT_OVERHEAD)
    return {
        'setting': dataclasses.asdict(config) | {'bands': BANDS, 'side': args.side},
        'pairs': args.pairs, 'iterations_per_block': args.iterations, **found, 'ok': found['met'],
    }  # fmt: skip


def main() -> int:
    """Run the benchmark; exit status 1 if a figure is over its limit."""
    parser = options(__doc__, pairs=10)
    parser.add_argument('--part', choices=['memory', 'step', 'both'], default='both')
    parser.add_argument('--rows', type=int, default=HEIGHT, help='of the scene')
    parser.add_argument('--tile', type=int, default=64)
    parser.add_argument('--tmp', type=Path, help='where the temporary folder is made; needs 5.5 GB')
    parser.add_argument('--side', type=int, default=60, help='of a patch of the training')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--iterations', type=int, default=10, help='per block')
    args = parsed(parser)
    result: dict[str, Any] = {'machine': machine(args.device)}
    if args.part != 'step':
        result['memory'] = memory(args)
    if args.part != 'memory':
        result['training_step'] = training_step(args)
    publish(result, args.out)
    return 0 if all(result[part]['ok'] for part in ('memory', 'training_step') if part in result) else 1


if __name__ == '__main__':
    sys.exit(main())
