"""Unmixing before Fusion (Yu et al., CVPR 2024) against rivals on real scenes, with and without RGB images.

    HSIAUG_DATA=folder python benchmarks/unmixing_fusion.py --quick      # 3 seeds, short trainings, no claims
    HSIAUG_DATA=folder python benchmarks/unmixing_fusion.py --device cuda --scale full

``hsiaug reproduce unmixing_fusion`` reproduces the tables of the paper. Here, images of its three abundance generators,
trained with and without aerial RGB images, are compared with those of a Gaussian mixture, of a network from RGB to
spectra, and of the same diffusion of an autoencoder's code and of the cube itself. An interrupted run resumes when
repeated.

The paper uses Chikusei and AID, images of 256 x 256 pixels, and four GPUs; here, there are eight AVIRIS scenes of
100 x 100 pixels, images of 16 x 16, and 48 aerial images of other places. All parts of a split come from blocks of the
same scenes.
"""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_scenes import AVIRIS_NM, _load, houston18_patches, jasper_ridge
from studies import data_root, options, parsed
from super_resolution import ABU
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from unmixing import windows

from hsiaug.ablation import Experiment
from hsiaug.ablation.experiment import means, means_table
from hsiaug.datasets import SceneDataset, SceneFolder
from hsiaug.engine import Run
from hsiaug.losses.unmixing import unmixing_loss
from hsiaug.metrics import frechet_distance, prdc, super_resolution_scores
from hsiaug.scenes import LabelledPatchSplitter, Scene
from hsiaug.systems import TrainingData
from hsiaug.systems.unmixing_fusion.abundances.diffusion import AbundanceDiffusion
from hsiaug.systems.unmixing_fusion.abundances.train import AbundanceConfig, DiffusionTraining
from hsiaug.systems.unmixing_fusion.train import UNMIXING_FILE, UnmixingFusionConfig, train_unmixing_fusion
from hsiaug.systems.unmixing_fusion.unmixing.network import UnmixingNetwork
from hsiaug.systems.unmixing_fusion.unmixing.train import UnmixingConfig, abundances_from_rgb, train_unmixing
from hsiaug.trainers import fit_generator, training_data
from hsiaug.trainers.patch_encoder import train_patch_encoder

PLACES = {1: 'airport', 2: 'beach', 3: 'urban'}
OXYGEN_NM, BEFORE, AFTER = 761.0, 38, 36  # an atmospheric absorption, and bands on both sides of it
SIDE = 16  # of an image; the AVIRIS scenes are 100 pixels wide
RGB_FACTOR = 4  # aerial pixels to one of an image, a side
RGB_FOLDERS = ('cIndustry', 'fResident', 'dRiverLake', 'gParking')
"""Classes of RGB images that resemble the AVIRIS scenes."""
K = 5  # endmembers, or channels of a code
PIXELS = 20_000  # pixels to fit a mixture
KINDS = {'vae': 'VAE', 'style_gan': 'style GAN', 'diffusion': 'diffusion'}


@dataclass(frozen=True)
class Scale:
    """Sizes for a machine.

    Args:
        kinds: settings of each kind of generator of abundances.
        unmixing: changes of :meth:`~hsiaug.trainers.UnmixingConfig.small`.
        scenes: of :data:`SCENES`.
        samples: largest number of synthetic images, compared with equally many real ones.
    """

    kinds: Mapping[str, Mapping[str, Any]]
    unmixing: Mapping[str, Any]
    scenes: tuple[str, ...] = ('places',)
    samples: int = 400


GAN, UNET = {'batch_size': 8, 'network': {'width': 16}}, {'network': {'channels': [16, 32]}}
NARROW = (16, 32, 64, 48, 24)  # half the published widths of the unmixing network
SCALES = {
    'quick': Scale(
        {'vae': {'iterations': 300}, 'style_gan': {'iterations': 250, **GAN}, 'diffusion': {'iterations': 400, **UNET}},
        {'steps': 300, 'batch_size': 16, 'widths': NARROW}, samples=300,
    ),
    'small': Scale(
        {'vae': {'iterations': 1500}, 'style_gan': {'iterations': 1500, **GAN},
         'diffusion': {'iterations': 2000, **UNET}},
        {'steps': 800, 'batch_size': 16, 'widths': NARROW},
    ),
    'full': Scale(
        {'vae': {'iterations': 20_000, 'batch_size': 64}, 'style_gan': {'iterations': 20_000, 'batch_size': 64},
         'diffusion': {'iterations': 20_000, 'batch_size': 64, 'network': {'channels': [64, 128]}}},
        {'steps': 2000, 'batch_size': 16}, ('places', 'houston18', 'jasper_ridge'),
    ),
}  # fmt: skip


# --- scenes -----------------------------------------------------------------------------------------------------------


def places(root: Path) -> Scene:
    """AVIRIS scenes of eight places; the label is the kind of place, from the file name.

    The files give neither wavelengths nor gains. Radiance shows oxygen's absorption at 761 nm in one band, from which
    75 bands are counted at AVIRIS' spacing, up to the first that was removed for water: nominal, but the same in all
    scenes. Since brightness would reveal the class, each scene is divided by its 99th percentile. San Diego is left
    out: without an oxygen absorption, it must be reflectance.
    """
    kinds, tiles, labels = {name: number for number, name in PLACES.items()}, [], []
    for name in ABU:
        if name == 'sandiego':
            continue
        cube = _load(root / 'abu_anomaly' / f'{name}.npz')['cube'][:100, :100].astype(np.float32)
        mean = cube.mean(axis=(0, 1))
        dips = 2 * mean[2:-2] / (mean[:-4] + mean[4:])
        oxygen = 2 + 30 + int(dips[30:50].argmin())
        cube = cube[..., oxygen - BEFORE : oxygen + AFTER + 1]
        tiles.append(cube / np.quantile(cube, 0.99))
        labels.append(np.full(cube.shape[:2], kinds[name.split('-')[1]]))
    return Scene.from_tiles(
        'places',
        np.stack(tiles),
        np.stack(labels),
        class_names=PLACES,
        wavelengths=OXYGEN_NM + np.diff(AVIRIS_NM).mean() * np.arange(-BEFORE, AFTER + 1),
        wavelengths_approximate=True,
        unit='radiance, relative',
    )


SCENES: dict[str, Callable[[Path], Scene]] = {
    'places': places,
    'houston18': houston18_patches,
    'jasper_ridge': jasper_ridge,
}
SPLITTER = LabelledPatchSplitter(
    size=24, stride=24, patch=SIDE, patch_stride=4, rule='dominant', regions='blocks', min_labelled=0.1
)
"""Images of 16 x 16 pixels from blocks of 24; each block is for training, validation or test as a whole."""


class Bench:
    """One split of one scene, and everything that its methods share."""

    def __init__(self, root: Path, out: Path, scene: str, seed: int, scale: str, device: str) -> None:
        self.root, self.seed, self.scale, self.device = root, seed, SCALES[scale], device
        self.folder = out / 'training' / f'{scene}-{seed}'
        found = SCENES[scene](root)
        split = SPLITTER(found, seed)
        self.data, test = training_data(found, split), SceneDataset.from_scene(found, split, 'test').image
        self.count = min(len(test), len(self.data.x), self.scale.samples)
        rng = torch.Generator().manual_seed(seed)
        rows, tested = (torch.randperm(n, generator=rng)[: self.count] for n in (len(self.data.x), len(test)))
        self.trained_on, self.labels, self.real = self.data.x[rows], self.data.y[rows], test[tested]
        self.config = UnmixingConfig.small(endmembers=K, **self.scale.unmixing)

    @cached_property
    def encoder(self) -> Any:
        """Features of images, from a network trained on the classes of training images."""
        masks = self.data.y[:, None, None].expand(-1, SIDE, SIDE)
        return train_patch_encoder(self.data.x, masks, self.data.spec.num_classes, seed=self.seed)

    @cached_property
    def rgb(self) -> Tensor:
        """(n, 3, H, W) images from 0 to 1."""
        return SceneDataset.from_dataset(SceneFolder(self.root / 'rsscn7', RGB_FOLDERS, scale=1 / 255)).image

    @cached_property
    def unmixing(self) -> UnmixingNetwork:
        """The unmixing network, trained once for all methods."""
        return train_unmixing(self.data.x, self.data.spec.wavelengths, self.config, self.run(self.folder))

    def run(self, folder: Path) -> Run:
        """Run with the seed of the split."""
        return Run(self.seed, device=self.device, folder=folder)


# --- methods ----------------------------------------------------------------------------------------------------------

Made = tuple[Tensor, Tensor | None]
"""(n, C, s, s) synthetic images; and reconstructed test images, if the method has a code."""


def fused(bench: Bench, kind: str, rgb: bool = False) -> Made:
    """Unmixing before fusion, without classes, as in the paper."""
    folder = bench.folder / f'{kind}{"-rgb" if rgb else ""}'
    folder.mkdir(parents=True, exist_ok=True)
    _ = bench.unmixing  # trained, so that its file exists
    if not (folder / UNMIXING_FILE).exists():
        shutil.copyfile(bench.folder / UNMIXING_FILE, folder / UNMIXING_FILE)
    config = UnmixingFusionConfig(
        bench.config, {'kind': kind, **bench.scale.kinds[kind]}, conditional=False, rgb=bench.rgb if rgb else None,
        rgb_factor=RGB_FACTOR,
    )  # fmt: skip
    generator = train_unmixing_fusion(bench.data, config, bench.run(folder))
    shutil.rmtree(folder)
    image = generator.sample(bench.count, bench.labels, seed=bench.seed)['image'].cpu()
    return image, generator.unmixed_and_remixed(bench.real.to(bench.device))['image'].cpu()


def gaussian_images(data: TrainingData, components: int, labels: Tensor, seed: int) -> Tensor:
    """(n, C, s, s) images of independent pixels from the Gaussian mixture of the image's class.

    Args:
        data: labelled training images.
        components: components of the mixture of a class.
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


def from_rgb(bench: Bench) -> Made:
    """Spectra for RGB images, after the same matching of colours as in unmixing."""
    network = train_rival(reconstruction, bench.unmixing, bench.data.x, bench.config, bench.seed)
    patches = torch.cat([windows(image, SIDE, SIDE) for image in avg_pool2d(bench.rgb, RGB_FACTOR)])
    # Colours are matched over all images together.
    image = network.mix(abundances_from_rgb(network, patches)).cpu()
    rows = torch.randperm(len(image), generator=torch.Generator().manual_seed(bench.seed))[: bench.count]
    return image[rows], network.mix(network.abundances(bench.real)).cpu()


def coded(bench: Bench) -> Made:
    """Diffusion of the code of a plain autoencoder."""
    network = train_rival(autoencoder, bench.unmixing, bench.data.x, bench.config, bench.seed)
    image = network.mix(diffused(bench, network.abundances(bench.data.x))).cpu()
    return image, network.mix(network.abundances(bench.real)).cpu()


def diffused(bench: Bench, maps: Tensor) -> Tensor:
    """Maps generated by diffusion, like the given ones."""
    config = AbundanceConfig('diffusion', **bench.scale.kinds['diffusion'])
    model = train_free_diffusion(maps, bench.data.y, bench.data.spec.num_classes, config, bench.seed, bench.device)
    return model.sample(bench.count, bench.labels, torch.Generator().manual_seed(bench.seed))


METHODS: dict[str, Callable[[Bench], Made]] = {
    **{f'{name} + RGB': partial(fused, kind=kind, rgb=True) for kind, name in KINDS.items()},
    **{name: partial(fused, kind=kind) for kind, name in KINDS.items()},
    'Gaussian mixture': lambda bench: (gaussian_images(bench.data, K, bench.labels, bench.seed), None),
    'RGB to spectrum': from_rgb,
    'diffusion of the code': coded,
    'diffusion of the cube': lambda bench: (
        (diffused(bench, bench.data.x.to(bench.device) / bench.unmixing.scale) * bench.unmixing.scale).cpu(), None
    ),
    'real training images': lambda bench: (bench.trained_on, None),
}  # fmt: skip


class FreeDiffusion(AbundanceDiffusion):
    """Diffusion of abundances, for maps that are not on a simplex."""

    def draw(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """Draw like the base class, without the projection at the end."""
        return self.denoised(index, rng)


def train_free_diffusion(
    maps: Tensor, labels: Tensor, num_labels: int, config: AbundanceConfig, seed: int, device: str
) -> FreeDiffusion:
    """Train diffusion of maps (N, c, s, s) with values of about 1, like ``train_abundances``."""
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


def _convolutions(*channels: int, act: type[nn.Module]) -> nn.Sequential:
    """3 x 3 convolutions with activations, and a final 1 x 1 convolution."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels[:-1]):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode='replicate'), act()]
    return nn.Sequential(*layers, nn.Conv2d(channels[-2], channels[-1], 1))


def autoencoder(like: UnmixingNetwork, config: UnmixingConfig) -> UnmixingNetwork:
    """The unmixing network's encoder without the simplex, and a convolutional decoder; codes of as many channels."""
    network, k = copy.deepcopy(like), like.num_endmembers
    network.encoder = UnmixingNetwork(like.selection, k, config.widths).encoder[:-1]
    network.decoder = _convolutions(k, 48, 96, like.selection.shape[1], act=nn.ReLU)  # type: ignore[assignment]
    return network


def reconstruction(like: UnmixingNetwork, config: UnmixingConfig) -> UnmixingNetwork:
    """A network from three bands to all: convolutions as the encoder, no decoder."""
    network = copy.deepcopy(like)
    network.encoder = _convolutions(len(like.selection), 64, 64, like.selection.shape[1], act=nn.GELU)
    network.decoder = nn.Identity()  # type: ignore[assignment]
    return network


def train_rival(
    make: Callable[[UnmixingNetwork, UnmixingConfig], UnmixingNetwork],
    like: UnmixingNetwork,
    images: Tensor,
    config: UnmixingConfig,
    seed: int,
) -> UnmixingNetwork:
    """Train an :func:`autoencoder` or a :func:`reconstruction` for as many steps as the unmixing network.

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


# --- measurement ------------------------------------------------------------------------------------------------------

COLUMNS = {
    'fid': 'FID', 'recall': 'recall', 'precision': 'precision', 'fid_train': 'FID to training', 'edges': 'edges',
    'rmse': 'RMSE', 'psnr': 'PSNR (dB)', 'ssim': 'SSIM', 'sad': 'SAD (deg)',
}  # fmt: skip
ABOUT = (
    'Fréchet distances, precision and recall are of features of a small network that learnt the classes of the '
    'training images of the split; distances compare within a scene, not with those of the text, and see spectra '
    'better than shapes: a Gaussian mixture, whose pixels know nothing of each other, does well by them. Edges show '
    'what they miss: standard deviation of differences of neighbouring pixels, synthetic over real, 1 is right. RMSE, '
    'PSNR, SSIM and SAD are of test images through the code and back, RMSE in units of a bright pixel. Claims need 10 '
    'seeds.\n'
)


@dataclass(frozen=True)
class Cell:
    """One method on one split of one scene."""

    scene: str
    seed: int
    method: str


bench_of = lru_cache(maxsize=1)(Bench)


def measure(cell: Cell, root: Path, out: Path, scale: str, device: str) -> dict[str, float]:
    """Scores of one method on one split."""
    bench = bench_of(root, out, cell.scene, cell.seed, scale, device)
    image, restored = METHODS[cell.method](bench)
    real, made, trained = (bench.encoder(x.to(device)).cpu() for x in (bench.real, image, bench.trained_on))
    near = prdc(real, made, k=3)  # as in Kynkäänniemi et al. 2019, which the paper follows
    row = {
        'fid': frechet_distance(real, made), 'fid_train': frechet_distance(trained, made), 'precision': near.precision,
        'recall': near.recall, 'edges': float(edges(image) / edges(bench.trained_on)),
    }  # fmt: skip
    if restored is not None:
        peak = float(bench.unmixing.scale)
        scores = super_resolution_scores(restored, bench.real, 1, peak)
        error = float((restored - bench.real).square().mean().sqrt()) / peak
        row |= {'rmse': error, 'psnr': scores.psnr, 'ssim': scores.ssim, 'sad': math.degrees(scores.sam)}
    return row


def edges(image: Tensor) -> Tensor:
    """() standard deviation of the differences between neighbouring pixels."""
    return torch.stack([image.diff(dim=d).std() for d in (2, 3)]).mean()


def main() -> None:
    """Measure what is missing, print and write the table."""
    args = parsed(options(__doc__, 'unmixing-fusion', SCALES, '3 seeds, short trainings'))
    out, scale = args.out, SCALES[args.scale]
    experiment = Experiment(
        'Unmixing before Fusion and its rivals on real scenes',
        [Cell(scene, seed, method) for seed in range(args.seeds) for scene in scale.scenes for method in METHODS],
        partial(measure, root=data_root(), out=out, scale=args.scale, device=args.device),
        {'scale': scale},
        lambda cell: (cell.scene, cell.seed),
    )
    table = means(experiment.run(out, args.workers, args.engine, args.device), ('scene', 'method'), list(COLUMNS))
    text = f'{ABOUT}\n{means_table(table, ("scene", "method"), COLUMNS)}'
    print(experiment.write(out, text, table, args.device))


if __name__ == '__main__':
    main()
