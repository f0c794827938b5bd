"""Speed of one training iteration of the spectral GAN, against a textbook loop.

    python benchmarks/speed_spectral_gan.py --threads 2 --out benchmarks/results/speed_spectral_gan_cpu.json
    python benchmarks/speed_spectral_gan.py --device cuda --out benchmarks/results/speed_spectral_gan_cuda.json

Both loops have the same losses, batch and networks, in the paper's setting: batch 256, four hidden layers of 512, two
steps of critic and classifier per generator step, gradient penalty, RMSprop. The textbook loop computes the penalty by
double backward, passes real and synthetic samples one after the other, makes a data loader per step, builds the
generator's graph in the critic's step (and detaches from it, unlike the published notebook, which back-propagates
there), and computes unused gradients of critic and classifier in the generator's step. The two are timed in
interleaved blocks A B B A, so that a change of load affects both; the ratio is taken per pair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from measure import interleaved, machine, milliseconds, options, parsed, publish, ratios, summary
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import DataLoader, TensorDataset

from hsiaug.functional.gradient_penalty import gradient_penalty_autograd
from hsiaug.samples import SampleSpec
from hsiaug.systems.base import TrainingData
from hsiaug.systems.spectral_gan.train import SpectralGANConfig, SpectralGANTraining


def spectra(samples: int, bands: int, classes: int) -> TrainingData:
    """Smooth random spectra; speed does not depend on their content."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand((samples, bands), generator=rng).cumsum(dim=1) / bands
    y = torch.arange(samples) % classes
    spec = SampleSpec('spectrum', bands, tuple(f'class {k}' for k in range(classes)))
    return TrainingData(spec, x, y, x[:0], x[:0], y[:0])


class Textbook:
    """The loop as one would write it from the papers.

    Args:
        data: training data.
        config: setting.
        device: device to train on.
        through_generator: back-propagate the critic's loss through the generator, as the published notebook does.
    """

    def __init__(
        self, data: TrainingData, config: SpectralGANConfig, device: str, through_generator: bool = False
    ) -> None:
        self.through_generator = through_generator
        self.config, self.device, self.classes = config, device, data.spec.num_classes
        x = (data.x - data.x.min()) / (data.x.max() - data.x.min())
        self.data = TensorDataset(x, data.y)
        self.generator = self._network(config.noise_dim + self.classes, data.spec.bands).append(nn.Sigmoid()).to(device)
        self.critic = self._network(data.spec.bands, 1).to(device)
        self.classifier = self._network(data.spec.bands, self.classes).to(device)
        networks = (self.generator, self.critic, self.classifier)
        self.optimisers = [torch.optim.RMSprop(n.parameters(), lr=config.lr) for n in networks]

    def _network(self, inputs: int, outputs: int) -> nn.Sequential:
        widths = [inputs, *[self.config.hidden] * self.config.layers]
        layers = [m for i, o in pairwise(widths) for m in (nn.Linear(i, o), nn.LeakyReLU(0.2))]
        return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

    def _batch(self) -> tuple[Tensor, Tensor]:
        x, y = next(iter(DataLoader(self.data, self.config.batch_size, shuffle=True)))
        return x.to(self.device), y.to(self.device)

    def _fake(self, labels: Tensor) -> Tensor:
        noise = torch.randn(len(labels), self.config.noise_dim, device=self.device)
        return self.generator(torch.cat([noise, one_hot(labels, self.classes).float()], dim=1))  # type: ignore[no-any-return]

    def step(self) -> None:
        """One iteration."""
        of_generator, of_critic, of_classifier = self.optimisers
        for _ in range(self.config.critic_steps):
            real, labels = self._batch()
            fake = self._fake(labels)
            if not self.through_generator:
                fake = fake.detach()
            epsilon = torch.rand(len(real), 1, device=self.device)
            penalty = gradient_penalty_autograd(self.critic, epsilon * real + (1 - epsilon) * fake)
            of_critic.zero_grad()
            loss = self.critic(fake).mean() - self.critic(real).mean() + self.config.penalty * penalty
            loss.backward()
            of_critic.step()
            of_classifier.zero_grad()
            cross_entropy(self.classifier(real), labels).backward()
            of_classifier.step()
        _, labels = self._batch()
        fake = self._fake(labels)
        of_generator.zero_grad()
        loss = -self.critic(fake).mean() + self.config.class_weight * cross_entropy(self.classifier(fake), labels)
        loss.backward()
        of_generator.step()


def main() -> None:
    """Time both loops and write what was found."""
    parser = options(__doc__, pairs=15)
    parser.add_argument('--iterations', type=int, default=None, help='per block; 3 on the CPU, 200 on a GPU')
    parser.add_argument('--bands', type=int, default=103, help='as Pavia University')
    parser.add_argument('--classes', type=int, default=9)
    parser.add_argument('--samples', type=int, default=1283, help='3 %% of Pavia University')
    parser.add_argument('--tf32', action='store_true', help='allow TF32 matrix products, in both loops')
    parser.add_argument('--no-textbook', action='store_true', help='time our loop alone')
    args = parsed(parser)
    torch.set_float32_matmul_precision('high' if args.tf32 else 'highest')
    config, data = SpectralGANConfig.paper(), spectra(args.samples, args.bands, args.classes)
    result: dict[str, Any] = {'machine': machine(args.device)}
    result['setting'] = dataclasses.asdict(config) | {k: getattr(args, k) for k in ('bands', 'classes', 'samples')}
    ours, rng = SpectralGANTraining(data, config, 0, args.device), torch.Generator(args.device)
    loops: dict[str, Callable[[], None]] = {'hsiaug': lambda: ours.advance(rng)}
    if not args.no_textbook:
        loops['textbook'] = Textbook(data, config, args.device).step
        loops['textbook, through the generator'] = Textbook(data, config, args.device, through_generator=True).step
    block = args.iterations or (3 if args.device == 'cpu' else 200)
    for step in loops.values():  # warm-up: allocator, threads, graphs
        milliseconds(step, max(3, block // 4), args.device)
    blocks = {name: partial(milliseconds, step, block, args.device) for name, step in loops.items()}
    times = interleaved(blocks, args.pairs)
    result['pairs'], result['iterations_per_block'] = args.pairs, block
    result['ms_per_iteration'] = {name: summary(values) for name, values in times.items()}
    ours_alone = times.pop('hsiaug')
    result['speedup_per_pair'] = {name: ratios(ours_alone, values) for name, values in times.items()}
    publish(result, args.out)


if __name__ == '__main__':
    main()
