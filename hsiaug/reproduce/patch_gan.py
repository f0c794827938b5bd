"""The convolutional GAN of a tutorial for labelled patches; it publishes no figures to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from ..ablation import Setting, Study
from ..datasets.preview import preview_grid
from ..named_configs import published_config
from ..scenes import LabelledPatchSplitter
from ..tasks import TASKS, SceneClassifier
from .base import Drawing, Paper, Scale, Table, Values, Work, scene_files, scene_study

SCENES = {'PaviaU': 'pavia_university', 'Indian Pines': 'indian_pines', 'Salinas': 'salinas'}
NETWORKS = {'cnn2d': '2-D CNN', 'cnn3d': '3-D CNN'}
METRICS = {'oa': 'OA', 'kappa': 'κ'}
"""That the tutorial recommends."""


def _study(work: Work, name: str) -> Study:
    """The study of one scene: the configuration, with whatever the scale shortens."""
    config, scale = published_config('patch_gan'), work.settings
    splitter = LabelledPatchSplitter(**{**config['split']['settings'], **scale['split']})
    networks: list[Any] = [TASKS['scene'].model(model) for model in config['models']]
    return scene_study(
        work, name, SCENES, 'patch_gan', (Setting(name, 'patches', splitter),),
        title=f'Patch GAN, {name}',
        classifiers=tuple(SceneClassifier(one.name, replace(one.config, **scale['networks'])) for one in networks),
        fidelity_seeds=0,
    )  # fmt: skip


def _row(row: Any) -> str:
    return 'real only' if row['arm'] == 'real' else f'{row["arm"]}, ratio {row["ratio"]:g}'


def _column(name: str, row: Any) -> str:
    return f'{row["scene"]}, {NETWORKS[row["classifier"]]}, {name}'


def gain_table(work: Work) -> Values:
    """Overall accuracies and kappa coefficients, in percent."""
    values: dict[tuple[str, str], Any] = {}
    for metric, name in METRICS.items():
        values |= work.scores_of(_study, metric, _row, partial(_column, name))
    return values


def draw_patches(work: Work) -> Iterator[tuple[str, Figure]]:
    """A real and a synthetic patch of each class, for each GAN of the first seed."""
    for name in work.found:
        group = work.group(study := _study(work, name), name)
        rows = [int((group.data.y == k).nonzero()[0]) for k in range(group.data.spec.num_classes)]
        real = {'image': group.data.x[rows], 'label': group.data.y[rows]}
        for arm in study.arms:
            if not arm.control:
                drawn = group.generator(arm).sample(len(rows), real['label'], seed=0)
                fake = {key: value.cpu() for key, value in drawn.items()}
                yield f'{arm.name}, {name}', preview_grid(real, fake, group.data.spec, len(rows))


_DEMO = {'steps': 2, 'batch_size': 4}
_SETTINGS: dict[Scale, dict[str, Any]] = {
    'paper': {'seeds': 10, 'gan': {}, 'networks': {}, 'split': {}},
    'small': {'seeds': 2, 'gan': {'iterations': 1000, 'critic_steps': 1}, 'networks': {'steps': 150}, 'split': {}},
    'demo': {
        'seeds': 2, 'gan': {'iterations': 2, 'critic_steps': 1, 'batch_size': 4}, 'networks': _DEMO,
        'split': {'per_class': 6, 'val_per_class': 3, 'min_patches': 3},
    },
}  # fmt: skip

PATCH_GAN = Paper(
    name='patch_gan',
    citation='How can hyperspectral image classification be implemented using PyTorch-based Generative Adversarial '
    'Networks? A tutorial, 2024',
    files=scene_files(SCENES),
    tables=(
        Table(
            1, 'Overall accuracy and kappa of CNNs (%)', (), {}, gain_table, configs=('patch_gan',),
            note='The text has no table and names no data: these are the public scenes that it may have in mind. The '
            'ratio is that of synthetic to real patches; its example has 4.',
        ),
    ),
    figures=(Drawing(1, 'A real and a synthetic patch of each class; the tutorial has no figure', draw_patches),),
    settings=_SETTINGS,
)  # fmt: skip
