"""Yu et al. 2024, Unmixing before Fusion: images from generated abundances, and gains of scene classifiers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from torch import Tensor

from ..datasets import MixedDataset, PatchDataset, SceneDataset, SceneFolder, adapt
from ..datasets.preview import preview_grid
from ..metrics import frechet_distance, prdc, super_resolution_scores
from ..named_configs import published_config
from ..records import as_record
from ..scenes import PatchSplitter
from ..scenes.config import SceneConfig
from ..streams import shuffled
from ..systems import TrainingData
from ..systems.data import data_of
from ..tasks import task_of
from ..trainers.inception import InceptionFeatures
from ..trainers.patch_encoder import train_patch_encoder
from .base import Drawing, Files, MissingDataError, Paper, Scale, Table, Values, Work, kept, picture_row

KINDS = {'UBF+VDVAE': 'vdvae', 'UBF+StyleGAN3': 'stylegan3', 'UBF+DDPM': 'ddpm'}
"""Rows of Table 1 and the suffixes of their configurations."""
CUBE, RGB, LABELLED = 'Chikusei', 'AID', 'HSRS-SC'
SMALL_CUBE, SMALL_RGB = 'Samson', 'RSSCN7'
SAMPLING = 'Sampling (s)'
CLUSTERS = 5  # of spectra, which the encoder of images learns to distinguish
CLASSES = 4  # of five in the text, without "idle region"
SIZES = ('4k', '8k')
"""Published totals, one for each ratio of the configuration."""


def _endmembers() -> dict[str, dict[str, int]]:
    """Rows of Table 2: numbers of endmembers and training steps."""
    found: dict[str, dict[str, int]] = published_config('unmixing_fusion_table2')['rows']
    return found


def _shorter(work: Work, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Published settings, with whatever the scale shortens."""
    scale, kind = work.settings, settings['abundances']['kind']
    abundances = settings['abundances']
    if kind in scale['abundances']:
        abundances = {'kind': kind, **scale['abundances'][kind]}
    return {**settings, 'unmixing': {**settings['unmixing'], **scale['unmixing']}, 'abundances': abundances}


@kept
def _images(work: Work, seed: int) -> tuple[TrainingData, PatchDataset]:
    """Training data of the generators, and test windows."""
    name = CUBE if CUBE in work.found else SMALL_CUBE
    if name not in work.found:
        raise MissingDataError(f'it is of {CUBE}, which is missing')
    config, (file,) = published_config('unmixing_fusion_ddpm'), work.found[name]
    given = config['scene'] if name == CUBE else {'one_class': True, 'range_nm': [400, 700]}
    scene = as_record(SceneConfig, {**given, 'path': str(file), 'name': name}, 'unmixing_fusion_ddpm')()
    split = PatchSplitter(**{**config['split']['settings'], **work.settings['split']})(scene, seed)
    train, test = (PatchDataset.from_scene(scene, split, part) for part in ('train', 'test'))
    return data_of(train), test


def _generator(work: Work, name: str, seed: int, row: str | None = None, rgb: bool = True) -> Any:
    """Learnt from the cube and the RGB images that are there, or not; as in a row of Table 2, if one is named."""
    settings = dict(published_config(f'unmixing_fusion_{name}')['settings'])
    if row is not None:
        changed = _endmembers()[row]
        settings['unmixing'] = {**settings['unmixing'], 'endmembers': changed['endmembers']}
        settings['abundances'] = {**settings['abundances'], 'iterations': changed['iterations']}
    settings = {**_shorter(work, settings), **work.settings['rgb']}
    folder = work.found.get(RGB, work.found.get(SMALL_RGB))
    if folder and rgb:
        settings['rgb'] = folder[0]
    elif rgb and work.scale == 'paper':
        raise MissingDataError(f'it is of {RGB} too, which is missing')
    file = f'{name}-{settings["unmixing"]["endmembers"]}{"" if rgb else "-without-rgb"}'
    return work.generator(file, 'unmixing_fusion', _images(work, seed)[0], settings, seed)


@kept
def _encoder(work: Work, seed: int) -> Any:
    """Features of images: from Inception, or from a network trained to tell clusters of the training spectra."""
    data, _ = _images(work, seed)
    x = data.x
    if work.inception is not None:
        return InceptionFeatures(work.inception, x, data.spec.wavelengths, work.device)
    spectra = x.movedim(1, -1).reshape(-1, x.shape[1])
    some = shuffled(len(spectra), seed)[:20_000]
    clusters = KMeans(CLUSTERS, n_init=1, random_state=seed).fit(spectra[some].numpy())
    masks = torch.from_numpy(clusters.predict(spectra.numpy()).astype(np.int64)).view(len(x), *x.shape[2:])
    return train_patch_encoder(x, masks, CLUSTERS, seed=seed, steps=work.settings['encoder_steps'], device=work.device)


def _scores(work: Work, name: str, seed: int, row: str | None = None) -> Mapping[str, float]:
    """Scores of synthetic images against training ones, and of test images after unmixing and remixing."""
    data, test = _images(work, seed)

    def measure() -> dict[str, float]:
        generator, encoder = _generator(work, name, seed, row), _encoder(work, seed)
        rows = shuffled(len(data.x), seed)[: work.settings['compared']]
        fake = generator.sample(len(rows), seed=seed)['image']
        start = perf_counter()
        generator.sample(1, seed=seed)['image'].cpu()
        seconds = perf_counter() - start
        real, made = (encoder(x.to(work.device)).cpu() for x in (data.x[rows], fake))
        near = prdc(real, made, k=3)
        restored = generator.unmixed_and_remixed(test.image.to(work.device))['image'].cpu()
        peak = float(data.x.max())
        again = super_resolution_scores(restored, test.image, 1, peak)
        return {
            'FID': frechet_distance(real, made), 'Recall': near.recall, 'Precision': near.precision,
            'Params (M)': sum(p.numel() for p in generator.abundances.parameters()) / 1e6,
            'RMSE': float((restored - test.image).square().mean().sqrt()) / peak, 'PSNR': again.psnr,
            'SSIM': again.ssim, 'SAD': math.degrees(again.sam), SAMPLING: seconds,
        }  # fmt: skip

    key = ['images', name, row, data.provenance and data.provenance.split, seed, sorted(work.found), *work.features]
    return work.scored(key, measure)


def generators_table(work: Work) -> Values:
    """Table 1."""
    columns = {c: c for c in (*_QUALITY, SAMPLING)}
    return work.measured({row: partial(_scores, work, name) for row, name in KINDS.items()}, columns)


def endmembers_table(work: Work) -> Values:
    """Table 2, without the row of the cube itself."""
    return work.measured({row: partial(_scores, work, 'ddpm', row=row) for row in _endmembers()}, {c: c for c in _ALL})


# --- Table 3 ----------------------------------------------------------------------------------------------------------


@kept
def _scenes(work: Work, seed: int) -> tuple[SceneDataset, SceneDataset]:
    """Labelled training images, 55 % of each class as in the paper, and test images."""
    if LABELLED not in work.found:
        raise MissingDataError(f'it is of {LABELLED}, which is missing')
    root = work.found[LABELLED][0]
    classes = [folder.name for folder in sorted(root.iterdir()) if folder.is_dir()]
    classes = [name for name in classes if 'idle' not in name.lower()][:CLASSES]
    centres = published_config('unmixing_fusion_table3')['data']['init_args']['wavelengths']
    every = SceneDataset.from_dataset(adapt(SceneFolder(root, classes, wavelengths=centres, layout='hwc')))
    rng, learnt, tested = np.random.default_rng(seed), list[int](), list[int]()
    for label in range(len(classes)):
        rows = rng.permutation(np.flatnonzero((every.label == label).numpy())).tolist()
        cut = round(0.55 * len(rows))
        learnt += rows[:cut]
        tested += rows[cut:]
    task = task_of(every.spec)
    train, test = (task.hold(every.image[part], every.label[part], every.spec) for part in (learnt, tested))
    return train, test  # type: ignore[return-value]


def _accuracy(
    work: Work, model: Mapping[str, Any], arm: Mapping[str, Any] | None, ratio: float, seed: int
) -> Mapping[str, float]:
    """Accuracy in percent of a network trained on real images and, if an arm is given, on its images."""
    name = model['name']

    def measure() -> dict[str, float]:
        train, test = _scenes(work, seed)
        task = task_of(train.spec)
        learnt: Any = train
        if arm is not None:
            settings = arm['settings']
            if arm['generator'] == 'unmixing_fusion':
                settings = _shorter(work, settings)
            source: Any = work.generator(arm['name'], arm['generator'], data_of(train), settings, seed)
            learnt = MixedDataset(train, source, ratio=ratio, seed=seed, labels=arm['labels'])
        changed = {**model, 'config': {**model['config'], **work.settings['classifiers']}}
        found = work.trained_scores(task.model(changed), learnt, test, seed)
        return {'oa': found['oa'], 'still_falls': found['still_falls']}

    row = 'real' if arm is None else f'{arm["name"]}, ratio {ratio:g}'
    return {'oa': 100 * work.scored(['scenes', name, row, seed], measure, f'{name}, {row}')['oa']}


def classifiers_table(work: Work) -> Values:
    """Table 3."""
    _scenes(work, work.seeds[0])
    config = published_config('unmixing_fusion_table3')
    sizes = dict(zip(config['ratios'], SIZES, strict=True))
    rows: dict[str, tuple[Mapping[str, Any] | None, float]] = {'×': (None, 0.0)}
    for arm in config['arms']:
        rows |= {f'{arm["name"]}, {sizes[ratio]}': (arm, ratio) for ratio in arm.get('ratios', config['ratios'])}
    values: dict[tuple[str, str], Sequence[float]] = {}
    for model in config['models']:
        measured = {row: partial(_accuracy, work, model, arm, ratio) for row, (arm, ratio) in rows.items()}
        values |= work.measured(measured, {model['name']: 'oa'})
    return values


# --- figures ----------------------------------------------------------------------------------------------------------


def _maps(image: Tensor, abundances: Tensor, title: str) -> Figure:
    """A band of an image (C, H, W) and its abundances (k, H, W)."""
    return picture_row(
        {title: image[len(image) // 2], **{f'abundance {n}': x for n, x in enumerate(abundances, start=1)}}
    )


def _grid(work: Work, fake: Tensor) -> Figure:
    """Eight real images and eight synthetic ones."""
    data, _ = _images(work, 0)
    spec = replace(data.spec, kind='scene')  # all masks hold a single class
    none = torch.zeros(8, dtype=torch.long)
    real = {'image': data.x[torch.linspace(0, len(data.x) - 1, 8).long()], 'label': none}
    return preview_grid(real, {'image': fake.cpu(), 'label': none}, spec, 8)


def draw_samples(work: Work) -> Iterator[tuple[str, Figure]]:
    """Fig. 6: images and abundances by each generator."""
    for row, name in KINDS.items():
        generator = _generator(work, name, 0)
        fake = generator.sample(8, seed=0)['image']
        yield f'images, {row}', _grid(work, fake)
        abundances = generator.unmixing.abundances(fake[:1]).cpu()
        yield f'abundances, {row}', _maps(fake[0].cpu(), abundances[0], 'synthetic')


def draw_unmixing(work: Work) -> Iterator[tuple[str, Figure]]:
    """Fig. 8: a test image, its abundances, and the remixed image."""
    _, test = _images(work, 0)
    generator, image = _generator(work, 'ddpm', 0), test.image[:1]
    abundances = generator.unmixing.abundances(image.to(generator.device)).cpu()
    yield 'real image and its abundances', _maps(image[0], abundances[0], 'real')
    again = generator.unmixed_and_remixed(image.to(generator.device))['image'].cpu()
    yield 'mixed again', _maps(again[0], abundances[0], 'mixed again')


def draw_without_rgb(work: Work) -> Iterator[tuple[str, Figure]]:
    """Fig. 11: images by a generator that learns from the cube alone."""
    if not {RGB, SMALL_RGB} & set(work.found):
        raise MissingDataError(f'it compares with {RGB}, which is missing')
    yield 'images, without RGB', _grid(work, _generator(work, 'ddpm', 0, rgb=False).sample(8, seed=0)['image'])


def _short(iterations: int, width: int, channels: list[int], sampling_steps: int) -> dict[str, Any]:
    """Short settings for each kind of abundance generator."""
    return {
        'vae': {'iterations': iterations, 'network': {}},
        'style_gan': {'iterations': iterations, 'batch_size': 8, 'network': {'width': width}},
        'diffusion': {
            'iterations': iterations, 'network': {'channels': channels, 'sampling_steps': sampling_steps},
        },
    }  # fmt: skip


_SETTINGS: dict[Scale, dict[str, Any]] = {
    'paper': {
        'seeds': 3, 'split': {}, 'unmixing': {}, 'abundances': {}, 'rgb': {}, 'compared': 5000,
        'encoder_steps': 2000, 'classifiers': {},
    },
    'small': {
        'seeds': 2, 'split': {'size': 16, 'stride': 4, 'block': 24, 'test_fraction': 0.3},
        'unmixing': {'widths': [16, 32, 64, 48, 24], 'steps': 300, 'batch_size': 8, 'learning_rate': 0.001},
        'abundances': _short(300, 16, [16, 32], 20), 'rgb': {'rgb_factor': 4, 'rgb_stride': 32}, 'compared': 300,
        'encoder_steps': 300,
        'classifiers': {'steps': 200, 'narrow': 8},
    },
    'demo': {
        'seeds': 1, 'split': {'size': 16, 'stride': 8, 'block': 16, 'test_fraction': 0.3},
        'unmixing': {'widths': [4, 8, 8, 8, 4], 'steps': 2, 'batch_size': 4},
        'abundances': _short(1, 8, [8, 16], 2), 'rgb': {}, 'compared': 16, 'encoder_steps': 2,
        'classifiers': {'steps': 1, 'narrow': 16, 'batch_size': 4, 'upsampling': 2},
    },
}  # fmt: skip
_OTHERWISE = ('FID', 'Recall', 'Precision')
_QUALITY = (*_OTHERWISE, 'Params (M)')
_ALL = ('RMSE', 'PSNR', 'SSIM', 'SAD', *_QUALITY)
_FEATURES = (
    'Our features are not those of the paper, and real images are the training images: the order of rows may be '
    'compared, not the values.'
)

UNMIXING_FUSION = Paper(
    name='unmixing_fusion',
    citation='Yu et al.: Unmixing Before Fusion: A Generalized Paradigm for Multi-Source-based Hyperspectral Image '
    'Synthesis, CVPR 2024',
    files=(
        Files(CUBE, ('HyperspecVNIR_Chikusei_20140729.mat',), 'https://naotoyokoya.com/Download.html'),
        Files(RGB, ('AID',), 'https://captain-whu.github.io/AID'),
        Files(LABELLED, ('HSRS-SC',), 'https://doi.org/10.11834/jig.200835; a folder for each class, of images of 48 '
              'bands in TIFF or MATLAB files'),
        Files(SMALL_CUBE, ('samson.npz',), 'the unmixing benchmark of that name', True),
        Files(SMALL_RGB, ('rsscn7',), 'RGB scenes, a folder for each class', True),
    ),
    tables=(
        Table(
            1, 'Images by three generators of abundances', (*_QUALITY, SAMPLING),
            {
                'UBF+VDVAE': (39.13, 0.209, 0.184, 178.78, 0.15), 'UBF+StyleGAN3': (7.69, 0.556, 0.502, 58.4, 0.03),
                'UBF+DDPM': (8.23, 0.509, 0.484, 99.7, 90),
            },
            generators_table, digits=3, note=f'{_FEATURES} Sampling is that of one image, on this machine.',
            otherwise=(*_OTHERWISE, SAMPLING),
            configs=tuple(f'unmixing_fusion_{name}' for name in KINDS.values()),
        ),
        Table(
            2, 'Numbers of endmembers, with DDPM',
            _ALL,
            {
                'HSI Cube(128)': (None,) * 7 + (393.24,),
                'Abundance(15)': (0.022, 36.48, 0.944, 4.56, 49.15, 0.11, 0.08, 100.85),
                'Abundance(8)': (0.027, 35.89, 0.938, 4.81, 15.19, 0.36, 0.31, 99.78),
                'Abundance(5)': (0.034, 34.26, 0.931, 5.47, 8.23, 0.50, 0.48, 99.76),
                'Abundance(3)': (0.041, 30.95, 0.927, 9.04, 8.77, 0.50, 0.41, 99.75),
            },
            endmembers_table, digits=3, configs=('unmixing_fusion_ddpm', 'unmixing_fusion_table2'),
            note=f'SAD in degrees; RMSE in units of the brightest pixel. {_FEATURES}',
            otherwise=_OTHERWISE,
        ),
        Table(
            3, 'Overall accuracy of scene classifiers (%)', ('AlexNet', 'VGG-16', 'ResNet-18'),
            {
                '×': (89.51, 87.30, 37.14), 'Affine Trans., 4k': (91.11, 88.84, 41.75),
                'Our UBF, 4k': (92.70, 93.97, 44.33), 'Our UBF, 8k': (94.29, 94.60, 45.76),
            },
            classifiers_table, configs=('unmixing_fusion_table3',),
            note='The text does not say which of its generators it takes, nor how it trains classifiers: here the one '
            'like StyleGAN3, given the class, which learns from the training images alone.',
        ),
    ),
    figures=(
        Drawing(6, 'Images and abundances by each generator: the text sees blur with the VAE alone', draw_samples),
        Drawing(8, 'Reconstruction by unmixing: the text sees fidelity in space and spectrum', draw_unmixing),
        Drawing(11, 'Images by a generator that saw no RGB image: the text sees monotony', draw_without_rgb),
    ),
    settings=_SETTINGS,
    encoder='a network that learnt five clusters of training spectra',
    note='Figures 7, 9 and 10 (curves of FID, generation of the cube and of a code), the autoencoder of Figure 8, the '
    'rivals GMM and MST++ of Figure 5, and the natural scenes of Figure 12; Figures 1 to 4 show the method.',
)  # fmt: skip
