"""What stands beside unmixing before fusion: a Gaussian mixture, RGB to spectrum, diffusion of cubes and of codes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from hsiaug.engine import Run
from hsiaug.losses.unmixing import unmixing_loss
from hsiaug.systems import TrainingData
from hsiaug.systems.unmixing_fusion.abundances.diffusion import AbundanceDiffusion
from hsiaug.systems.unmixing_fusion.abundances.stages import DiffusionTraining
from hsiaug.systems.unmixing_fusion.abundances.train import AbundanceConfig
from hsiaug.systems.unmixing_fusion.unmixing.network import UnmixingNetwork
from hsiaug.systems.unmixing_fusion.unmixing.train import UnmixingConfig
from hsiaug.trainers import fit_generator

PIXELS = 20_000  # that a mixture is fitted to


class FreeDiffusion(AbundanceDiffusion):
    """The diffusion of abundances for maps that lie on no simplex."""

    def draw(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """As the base class draws, but for the projection at the end."""
        return self.denoised(index, rng)


def train_free_diffusion(
    maps: Tensor, labels: Tensor, num_labels: int, config: AbundanceConfig, seed: int, device: str
) -> FreeDiffusion:
    """Train diffusion of any maps, as ``train_abundances`` trains that of abundances.

    Args:
        maps: (N, c, s, s), of values of about 1.
        labels: (N,).
        num_labels: K.
        config: of the training.
        seed: of everything random.
        device: where to train.
    """
    weights = torch.full((len(maps),), 1 / len(maps))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FreeDiffusion(maps.shape[1], maps.shape[2], num_labels, **config.network)
        model.observe(maps.cpu(), labels, weights)
        rest = (x.to(device) for x in (maps, labels, weights))
        training = DiffusionTraining(model.to(device), *rest, config, seed)
    training.run(Run())
    average = training.average.module
    assert isinstance(average, FreeDiffusion)
    return average.eval()


def autoencoder(like: UnmixingNetwork, config: UnmixingConfig) -> UnmixingNetwork:
    """The unmixing network's encoder without the simplex, and a decoder of convolutions: codes of as many channels."""
    network, k = copy.deepcopy(like), like.num_endmembers
    network.encoder = UnmixingNetwork(like.selection, k, config.widths).encoder[:-1]
    network.decoder = nn.Sequential(  # type: ignore[assignment]
        nn.Conv2d(k, 48, 3, padding=1, padding_mode='replicate'),
        nn.ReLU(),
        nn.Conv2d(48, 96, 3, padding=1, padding_mode='replicate'),
        nn.ReLU(),
        nn.Conv2d(96, like.selection.shape[1], 1),
    )
    return network


def reconstruction(like: UnmixingNetwork, config: UnmixingConfig) -> UnmixingNetwork:
    """A network from three bands to all: convolutions in the encoder's place, nothing in the decoder's."""
    network, width = copy.deepcopy(like), 64
    network.encoder = nn.Sequential(
        nn.Conv2d(len(like.selection), width, 3, padding=1, padding_mode='replicate'),
        nn.GELU(),
        nn.Conv2d(width, width, 3, padding=1, padding_mode='replicate'),
        nn.GELU(),
        nn.Conv2d(width, like.selection.shape[1], 1),
    )
    network.decoder = nn.Identity()  # type: ignore[assignment]
    return network


def train_rival(
    make: Callable[[UnmixingNetwork, UnmixingConfig], UnmixingNetwork],
    like: UnmixingNetwork,
    images: Tensor,
    config: UnmixingConfig,
    seed: int,
) -> UnmixingNetwork:
    """Train an :func:`autoencoder` or a :func:`reconstruction` for as many steps as the unmixing network was.

    Args:
        make: one of the two.
        like: the unmixing network, which gives inputs and their normalisation.
        images: (N, C, H, W) training images.
        config: of the unmixing network.
        seed: of weights and batches.
    """
    rng, device = torch.Generator().manual_seed(seed), like.scale.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make(like, config).to(device).train().requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    steps = config.steps or config.epochs * math.ceil(len(images) / config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    none = images.new_zeros(1, images.shape[1]).to(device)  # there are no endmembers
    for _ in range(steps):
        image = images[torch.randint(len(images), (config.batch_size,), generator=rng)].to(device)
        _, output = network(image)
        loss = unmixing_loss(output / network.scale, image / network.scale, none, config.sad_weight, 0.0)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def gaussian_images(data: TrainingData, components: int, labels: Tensor, seed: int) -> Tensor:
    """(n, C, s, s) images whose pixels come one by one from the Gaussian mixture of their image's class.

    Args:
        data: labelled training images.
        components: of the mixture of a class.
        labels: (n,) classes.
        seed: of fit and draw.
    """
    side = data.x.shape[-1]
    spectra, of_pixel = data.x.movedim(1, -1).flatten(0, 2), data.y.repeat_interleave(side * side)
    some = torch.randperm(len(spectra), generator=torch.Generator().manual_seed(seed))[:PIXELS]
    x, y = spectra[some], of_pixel[some]
    pixels = replace(
        data, spec=replace(data.spec, kind='spectrum', size=None), x=x, y=y, unlabelled=x[:0], val_x=x[:0], val_y=y[:0]
    )
    mixture = fit_generator('gaussian', pixels, {'components': components}, seed)
    drawn = mixture.sample(len(labels) * side * side, labels.repeat_interleave(side * side), seed)['image']
    return drawn.view(len(labels), side, side, -1).movedim(-1, 1)
