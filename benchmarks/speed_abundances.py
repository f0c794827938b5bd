"""Speed of abundance generators: the style-based GAN against diffusion, and abundances against the cube.

    python benchmarks/speed_abundances.py --threads 2 --out benchmarks/results/speed_abundances_cpu.json
    python benchmarks/speed_abundances.py --device cuda --size 256 --out benchmarks/results/speed_abundances_cuda.json

``sample``: a batch of maps by the GAN, and one by 20 steps of DPM-Solver++. ``step``: a training step, and
a sampling step, of diffusion of k abundances and of diffusion of all bands, with equal batch and size. The published
advantage of abundances is quality at equal effort; whether they are faster depends on the U-Net: at equal widths only
the first and last convolutions differ, so ``equal`` shows the cost of the bands themselves; in ``widened``, the first
level is at least as wide as the number of bands, for a U-Net that has to carry them all. All pairs are timed in
interleaved blocks A B B A, and ratios are taken per pair.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measure import machine, milliseconds, options, paired, parsed, publish

from hsiaug.systems.unmixing_fusion.abundances.diffusion import AbundanceDiffusion
from hsiaug.systems.unmixing_fusion.abundances.style_gan import StyleGAN
from hsiaug.systems.unmixing_fusion.abundances.train import AbundanceConfig, DiffusionTraining

STEPS = 20


def compared(steps: dict[str, Callable[[], object]], goal: float, args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of both steps, and the ratio of the second to the first, which should be ``goal`` at most."""
    blocks = {name: partial(milliseconds, step, args.iterations, args.device) for name, step in steps.items()}
    return paired(blocks, args.pairs, at_most=goal)


def sampling(args: argparse.Namespace) -> dict[str, Any]:
    """A batch of the GAN against one of 20 steps of diffusion."""
    gan = StyleGAN(args.k, args.size, 0).eval().to(args.device)
    diffusion = AbundanceDiffusion(args.k, args.size, 0, args.channels, sampling_steps=STEPS).eval().to(args.device)

    def draw(model: StyleGAN | AbundanceDiffusion) -> object:
        return model.sample(args.batch, None, torch.Generator().manual_seed(0))

    models: dict[str, StyleGAN | AbundanceDiffusion] = {'diffusion': diffusion, 'style GAN': gan}
    about = {name: {'settings': model.settings, 'parameters': parameters(model)} for name, model in models.items()}
    return about | compared({name: partial(draw, model) for name, model in models.items()}, 0.1, args)


def parameters(model: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def steps(args: argparse.Namespace, channels: list[int]) -> dict[str, Any]:
    """Diffusion of abundances against diffusion of all bands by a U-Net of ``channels``: training and sampling."""
    config = AbundanceConfig('diffusion', batch_size=args.batch)
    train, denoise, about = dict[str, Callable[[], object]](), dict[str, Callable[[], object]](), dict[str, Any]()
    for name, count, widths in (('cube', args.bands, channels), ('abundances', args.k, args.channels)):
        rng = torch.Generator(args.device).manual_seed(0)
        model = AbundanceDiffusion(count, args.size, 0, widths).to(args.device)
        # Speed does not depend on the content of maps; values of a cube replace abundances.
        maps = torch.rand((args.batch, count, args.size, args.size), generator=rng, device=args.device)
        index = torch.zeros(args.batch, dtype=torch.int64, device=args.device)
        weights = torch.full((args.batch,), 1 / args.batch, device=args.device)
        training = DiffusionTraining(model, maps, index, weights, config, 0)

        def forward(model: AbundanceDiffusion = model, maps: torch.Tensor = maps, index: torch.Tensor = index) -> None:
            with torch.no_grad():
                model(maps, index, index)

        train[name], denoise[name] = partial(training.update, rng), forward
        about[name] = {'channels': widths, 'parameters': parameters(model)}
    return {**about, 'training_step': compared(train, 0.5, args), 'sampling_step': compared(denoise, 0.5, args)}


def main() -> None:
    """Time all pairs and write what was found."""
    parser = options(__doc__, pairs=9)
    parser.add_argument('--size', type=int, default=64)
    parser.add_argument('--k', type=int, default=5, help='endmembers')
    parser.add_argument('--bands', type=int, default=100)
    parser.add_argument('--channels', type=int, nargs='+', default=[32, 64], help="levels of the abundances' U-Net")
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--iterations', type=int, default=None, help='per block; 1 on the CPU, 10 on a GPU')
    parser.add_argument('--quick', action='store_true', help='tiny maps and few pairs, to see that it works')
    args = parsed(parser)
    if args.quick:
        args.size, args.channels, args.bands, args.batch, args.pairs = 16, [8, 16], 20, 2, 2
    args.iterations = args.iterations or (1 if args.device == 'cpu' else 10)
    # The least power of two by which the first level is no narrower than the bands.
    factor = 1
    while factor * args.channels[0] < args.bands:
        factor *= 2
    result: dict[str, Any] = {
        'machine': machine(args.device, 'diffusers'),
        'setting': {name: getattr(args, name) for name in ('size', 'k', 'bands', 'batch', 'pairs', 'iterations')},
        'sample, style GAN against 20-step diffusion': sampling(args),
        'step, abundances against the cube, equal U-Net': steps(args, args.channels),
        'step, abundances against the cube, widened U-Net': steps(args, [factor * c for c in args.channels]),
    }
    publish(result, args.out)


if __name__ == '__main__':
    main()
