"""Speed of sampling image-mask pairs, and the cost of few steps in fidelity.

    python benchmarks/speed_sampling.py --device cuda --generator runs/specdm --out results/speed_sampling.json

Parts: ``fidelity``, the Fréchet distance to the training pairs with 20 steps of DPM-Solver++ and with 1000 ancestral
ones, at a fixed number of samples, repeated with other seeds; ``throughput``, denoising alone and with decoding;
``unet``, a step of the denoiser against its bare U-Net.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from measure import machine, milliseconds, options, paired, parsed, publish

from hsiaug.cli.config import trained_on
from hsiaug.metrics import frechet_distance
from hsiaug.metrics.masks import mask_features
from hsiaug.systems import Generator
from hsiaug.systems.two_stream_diffusion.model import TwoStreamDiffusion
from hsiaug.trainers import training_data
from hsiaug.trainers.patch_encoder import train_patch_encoder

PARTS = ('fidelity', 'throughput', 'unet')
FEW, MANY = ('dpm++', 20), ('ddpm', 1000)
Result = dict[str, Any]


def fidelity(generator: TwoStreamDiffusion, run: Path, count: int, repeats: int) -> Result:
    """Fréchet distances of images and masks to the training pairs."""
    data, spec = training_data(*trained_on(run)), generator.spec  # type: ignore[arg-type]
    encoder = train_patch_encoder(data.x, data.y, spec.num_classes, spec.ignore_index)
    real = encoder(data.x), mask_features(data.y, spec.num_classes, spec.ignore_index)
    result: Result = {'samples': count, 'training_pairs': len(data.x)}
    for sampler, steps in (FEW, MANY):
        generator.set_sampler(sampler, steps)  # type: ignore[arg-type]
        distances: tuple[list[float], list[float]] = ([], [])
        for repeat in range(repeats):
            batch = {key: value.cpu() for key, value in generator.sample(count, seed=repeat).items()}
            fake = encoder(batch['image']), mask_features(batch['mask'], spec.num_classes, spec.ignore_index)
            for values, a, b in zip(distances, fake, real, strict=True):
                values.append(round(frechet_distance(a, b), 4))
        result[f'{sampler}, {steps} steps'] = {'image': distances[0], 'mask': distances[1]}
    few, many = (result[f'{sampler}, {steps} steps'] for sampler, steps in (FEW, MANY))
    for what in ('image', 'mask'):
        ratio = statistics.mean(few[what]) / statistics.mean(many[what])
        spread = max(many[what]) / min(many[what])
        result[f'{what}_ratio'] = {
            'of means': round(ratio, 4), 'goal': 'at most 1.05', 'met': ratio <= 1.05,
            'largest over smallest of the repeats at 1000 steps': round(spread, 4),
        }  # fmt: skip
    return result


@torch.no_grad()
def throughput(generator: TwoStreamDiffusion, batch: int, pairs: int, device: str) -> Result:
    """Time of a batch: denoising alone, and with decoding."""
    shares = generator.mixtures[torch.zeros(batch, dtype=torch.int64)].to(device)
    noise = torch.randn(batch, *generator.code_shape, generator=torch.Generator().manual_seed(0)).to(device)

    def denoise() -> None:
        streams = [torch.Generator().manual_seed(i) for i in range(batch)]
        generator._denoise(noise.clone(), shares, streams)

    def whole() -> None:
        generator.sample(batch, seed=0)

    def timed(setting: tuple[Any, int], step: Callable[[], None]) -> float:
        generator.set_sampler(*setting)
        return milliseconds(step, 1, device) / batch

    result: Result = {'batch': batch}
    for name, step in (('denoising', denoise), ('whole', whole)):
        blocks = {f'per_pair_{setting[1]}_steps': partial(timed, setting, step) for setting in (FEW, MANY)}
        timed(FEW, step)  # also warms up the long one
        result[name] = paired(blocks, pairs, at_least=40 if name == 'denoising' else None, warm=True)
    if device != 'cpu':
        median = result['whole']['ms_per_pair_20_steps']['median']
        result['whole'] |= {'goal': 'at most 10 ms per pair on an H100', 'met': median <= 10}
    return result


@torch.no_grad()
def unet(generator: TwoStreamDiffusion, batch: int, pairs: int, steps: int, device: str) -> Result:
    """A step of the denoiser, conditions included, against its U-Net alone."""
    denoiser = generator.denoiser
    code = torch.randn(batch, *generator.code_shape, device=device)
    time = torch.full((batch,), 500, device=device)
    shares = torch.rand(batch, generator.spec.num_classes, device=device)
    labels = None if denoiser.condition is None else denoiser.condition(shares)

    def bare() -> None:
        denoiser.unet(code, time, class_labels=labels, return_dict=False)

    def wrapped() -> None:
        denoiser(code, time, shares)

    blocks = {name: partial(milliseconds, step, steps, device) for name, step in (('bare', bare), ('ours', wrapped))}
    return paired(blocks, pairs, at_most=1.03)


def main() -> None:
    """Measure and write the result."""
    parser = options(__doc__, pairs=5)
    parser.add_argument('--generator', type=Path, required=True, help='folder that hsiaug train wrote')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--count', type=int, default=500, help='samples of a Fréchet distance')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--batch', type=int, default=64)
    args = parsed(parser)
    generator = cast(TwoStreamDiffusion, Generator.from_pretrained(args.generator, args.device))
    if not isinstance(generator, TwoStreamDiffusion):
        raise SystemExit(f'{args.generator} holds a {type(generator).__name__}, a two_stream_diffusion is needed')
    result: Result = {
        'machine': machine(args.device, 'diffusers'),
        'generator': {'settings': generator.settings, 'spec': [generator.spec.bands, generator.spec.size]},
    }
    for part in args.parts:
        if part == 'fidelity':
            result[part] = fidelity(generator, args.generator, args.count, args.repeats)
        elif part == 'throughput':
            result[part] = throughput(generator, args.batch, args.pairs, args.device)
        else:
            result[part] = unet(generator, args.batch, max(args.pairs, 15), 10, args.device)
    publish(result, args.out)


if __name__ == '__main__':
    main()
