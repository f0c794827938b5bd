"""How each method of the study of "Unmixing before Fusion" makes images, on one split of one scene."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from unmixing import windows
from unmixing_fusion_data import RGB_FACTOR, SCENES, SIDE, opened, rgb_images
from unmixing_fusion_rivals import autoencoder, gaussian_images, reconstruction, train_free_diffusion, train_rival

from hsiaug.engine import Run
from hsiaug.systems import Generator
from hsiaug.systems.unmixing_fusion.abundances.train import AbundanceConfig
from hsiaug.systems.unmixing_fusion.model import UnmixingFusion
from hsiaug.systems.unmixing_fusion.train import UNMIXING_FILE, UnmixingFusionConfig, train_unmixing_fusion
from hsiaug.systems.unmixing_fusion.unmixing.network import UnmixingNetwork
from hsiaug.systems.unmixing_fusion.unmixing.train import UnmixingConfig, abundances_from_rgb, train_unmixing
from hsiaug.trainers.patch_encoder import train_patch_encoder

KINDS = {'vae': 'VAE', 'style_gan': 'style GAN', 'diffusion': 'diffusion'}
K = 5
"""Endmembers, but for the ablation of their number."""


@dataclass(frozen=True)
class Effort:
    """What a machine can carry.

    Args:
        kinds: settings of each kind of generator, see
            :class:`~hsiaug.systems.unmixing_fusion.abundances.AbundanceConfig`.
        unmixing: changes of :meth:`~hsiaug.trainers.UnmixingConfig.small`.
        endmembers: numbers of them to compare.
        alone: kinds that are trained without RGB images as well; diffusion must be among them.
        samples: most synthetic images that are compared with as many real ones.
    """

    kinds: Mapping[str, Mapping[str, Any]]
    unmixing: Mapping[str, Any]
    endmembers: tuple[int, ...] = (3, 5, 8, 15)
    alone: tuple[str, ...] = ('vae', 'style_gan', 'diffusion')
    samples: int = 400

    def config(self, kind: str, k: int, rgb: str | None) -> UnmixingFusionConfig:
        """Of the training of unmixing and one generator, without classes as in the text."""
        return UnmixingFusionConfig(
            {'endmembers': k, **self.unmixing}, {'kind': kind, **self.kinds[kind]}, conditional=False, rgb=rgb,
            rgb_factor=RGB_FACTOR,
        )  # fmt: skip


@dataclass(frozen=True)
class Method:
    """One way to images.

    Args:
        name: as it stands in the tables.
        make: name of the function of :data:`MAKERS`.
        tables: in which it stands.
        kind: of the abundances' generator.
        k: endmembers, or channels of a code.
        rgb: whether RGB images are learnt from.
    """

    name: str
    make: str
    tables: tuple[int, ...]
    kind: str = 'diffusion'
    k: int = K
    rgb: bool = False


def methods(effort: Effort) -> list[Method]:
    """All of them, in the order of the tables."""
    found = [Method(f'{name} + RGB', 'fusion', (1,), kind, rgb=True) for kind, name in KINDS.items()]
    found += [Method(KINDS[kind], 'fusion', (1,), kind) for kind in effort.alone if kind != 'diffusion']
    found += [Method('diffusion', 'fusion', (1, 2))]
    found += [Method('Gaussian mixture', 'gaussian', (1,)), Method('RGB to spectrum', 'reconstruction', (1,))]
    found += [Method(f'diffusion, k = {k}', 'fusion', (2,), k=k) for k in effort.endmembers if k != K]
    found += [Method('diffusion of the code', 'code', (2,)), Method('diffusion of the cube', 'cube', (2,))]
    return [*found, Method('real training images', 'real', (1, 2))]


@dataclass(frozen=True)
class Made:
    """What a method made.

    Args:
        image: (n, C, s, s) synthetic images.
        seconds: per image.
        parameters: of what makes them, the unmixing network or autoencoder left out.
        restored: test images through its code and back, where it has one.
    """

    image: Tensor
    seconds: float | None = None
    parameters: int | None = None
    restored: Tensor | None = None


@dataclass
class Bench:
    """One split of one scene, and what its methods share.

    Args:
        root: folder of the real scenes.
        rgb: folder of RGB images.
        out: run folder, for checkpoints.
        scene: its name.
        seed: of split and trainings.
        effort: of the trainings.
        device: where to train.
    """

    root: Path
    rgb: Path
    out: Path
    scene: str
    seed: int
    effort: Effort
    device: str = 'cpu'
    networks: dict[int, UnmixingNetwork] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data, self.test = opened(self.root, self.scene, self.seed)
        self.count = min(len(self.test), len(self.data.x), self.effort.samples)
        rng = torch.Generator().manual_seed(self.seed)
        self.rows = {n: torch.randperm(n, generator=rng)[: self.count] for n in (len(self.test), len(self.data.x))}

    @property
    def real(self) -> Tensor:
        """As many test images as synthetic ones are made."""
        return self.test.image[self.rows[len(self.test)]]

    @property
    def trained_on(self) -> Tensor:
        """As many training images."""
        return self.data.x[self.rows[len(self.data.x)]]

    @property
    def labels(self) -> Tensor:
        """Of these."""
        return self.data.y[self.rows[len(self.data.x)]]

    @cached_property
    def encoder(self) -> Any:
        """Features of images, by a network that learnt the classes of training images."""
        masks = self.data.y[:, None, None].expand(-1, SIDE, SIDE)
        return train_patch_encoder(self.data.x, masks, self.data.spec.num_classes, seed=self.seed)

    @cached_property
    def pictures(self) -> Tensor:
        """(n, 3, s, s) patches of the RGB images."""
        images, _ = rgb_images(self.rgb, self.data.spec.classes)
        return torch.cat([windows(image, SIDE, SIDE) for image in avg_pool2d(images, RGB_FACTOR)])

    @property
    def tile(self) -> Tensor:
        """(C, h, h) the scene, or the last of its tiles, whatever part it is in: for figures alone."""
        scene = SCENES[self.scene](self.root)
        rows, columns = scene.shape
        pixels = np.arange(rows * columns)[-(scene.tile_rows or rows) * columns :]
        return torch.from_numpy(scene.spectra(pixels)).view(-1, columns, scene.num_bands).movedim(2, 0)

    def checkpoint(self, k: int) -> Path:
        """Where the unmixing network of this split lies."""
        return self.out / 'unmixing' / f'{self.scene}-{self.seed}-{k}' / UNMIXING_FILE

    def unmixing(self, k: int) -> UnmixingNetwork:
        """The unmixing network, trained once for all methods."""
        if k not in self.networks:
            config, folder = UnmixingConfig.small(endmembers=k, **self.effort.unmixing), self.checkpoint(k).parent
            run = Run(self.seed, device=self.device, folder=folder)
            self.networks[k] = train_unmixing(self.data.x, self.data.spec.wavelengths, config, run)
        return self.networks[k]

    def fusion(self, method: Method) -> UnmixingFusion:
        """The generator of a method, kept in the run folder."""
        name = f'{self.scene}-{self.seed}-{method.name}'.replace(' ', '_').replace(',', '')
        kept = self.out / 'generators' / name
        if kept.is_dir():
            generator = Generator.from_pretrained(kept, self.device)
            assert isinstance(generator, UnmixingFusion)
            return generator
        self.unmixing(method.k)
        folder = self.out / 'training' / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / UNMIXING_FILE).exists():
            shutil.copyfile(self.checkpoint(method.k), folder / UNMIXING_FILE)
        config = self.effort.config(method.kind, method.k, str(self.rgb) if method.rgb else None)
        generator = train_unmixing_fusion(self.data, config, Run(self.seed, device=self.device, folder=folder))
        generator.save_pretrained(kept)
        shutil.rmtree(folder)
        return generator


def timed(make: Callable[[], Tensor], count: int, device: str) -> tuple[Tensor, float]:
    """What is made, and the seconds of each of ``count``."""
    begin = time.perf_counter()
    made = make()
    if device != 'cpu':
        torch.cuda.synchronize()
    return made.cpu(), (time.perf_counter() - begin) / count


def parameters(model: torch.nn.Module) -> int:
    """How many there are."""
    return sum(p.numel() for p in model.parameters())


def make_fusion(bench: Bench, method: Method) -> Made:
    """Unmixing before fusion."""
    generator = bench.fusion(method)
    count, labels = bench.count, bench.labels
    image, seconds = timed(lambda: generator.sample(count, labels, seed=bench.seed)['image'], count, bench.device)
    restored = generator.unmixed_and_remixed(bench.real.to(bench.device))['image'].cpu()
    return Made(image, seconds, parameters(generator.abundances), restored)


def make_gaussian(bench: Bench, method: Method) -> Made:
    """The mixture, pixel by pixel."""
    return Made(gaussian_images(bench.data, method.k, bench.labels, bench.seed))


def make_reconstruction(bench: Bench, method: Method) -> Made:
    """Spectra for RGB images, after the same matching of their colours as unmixing has."""
    network = train_rival(
        reconstruction, bench.unmixing(K), bench.data.x, UnmixingConfig.small(**bench.effort.unmixing), bench.seed
    )
    rng = torch.Generator().manual_seed(bench.seed)
    rows = torch.randperm(len(bench.pictures), generator=rng)[: bench.count]
    # Colours are matched over all images together, so all go in.
    count = len(bench.pictures)
    image, seconds = timed(lambda: network.mix(abundances_from_rgb(network, bench.pictures)), count, bench.device)
    restored = network.mix(network.abundances(bench.real)).cpu()
    return Made(image[rows], seconds, parameters(network), restored)


def make_code(bench: Bench, method: Method) -> Made:
    """Diffusion of the code of a plain autoencoder."""
    config = UnmixingConfig.small(**bench.effort.unmixing)
    network = train_rival(autoencoder, bench.unmixing(method.k), bench.data.x, config, bench.seed)
    image, seconds, count = _drawn(bench, network.abundances(bench.data.x), network.mix)
    return Made(image, seconds, count, network.mix(network.abundances(bench.real)).cpu())


def make_cube(bench: Bench, method: Method) -> Made:
    """Diffusion of all bands."""
    scale = bench.unmixing(method.k).scale
    return Made(*_drawn(bench, bench.data.x.to(scale) / scale, lambda x: x * scale))


def _drawn(bench: Bench, maps: Tensor, back: Callable[[Tensor], Tensor]) -> tuple[Tensor, float, int]:
    """Images by diffusion of maps, seconds for each and parameters."""
    config = AbundanceConfig('diffusion', **bench.effort.kinds['diffusion'])
    y, classes = bench.data.y, bench.data.spec.num_classes
    model = train_free_diffusion(maps, y, classes, config, bench.seed, bench.device)
    rng = torch.Generator().manual_seed(bench.seed)
    made = timed(lambda: back(model.sample(bench.count, bench.labels, rng)), bench.count, bench.device)
    return *made, parameters(model)


MAKERS: dict[str, Callable[[Bench, Method], Made]] = {
    'fusion': make_fusion,
    'gaussian': make_gaussian,
    'reconstruction': make_reconstruction,
    'code': make_code,
    'cube': make_cube,
    'real': lambda bench, method: Made(bench.trained_on),
}
