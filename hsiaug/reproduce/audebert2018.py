"""Audebert et al. 2018: spectra of a Wasserstein GAN, their analysis, and what a classifier gains from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..ablation import Setting, Study
from ..ablation.cells import Group
from ..ablation.runner import fidelity_files
from ..metrics.patches import Pair
from ..named_configs import published_config
from ..records import read_json
from ..report.samples import plot_class_spectra, plot_interpolation, plot_pca
from ..samples import SampleSpec
from ..scenes import make_splitter
from ..streams import shuffled
from ..tasks import TASKS, whole
from .base import STANDS_IN, Drawing, MissingDataError, Paper, Scale, Table, Values, Work, scene_files, scene_study

SCENES = {
    'PaviaU': 'pavia_university',
    'PaviaC': 'pavia_centre',
    'Botswana': 'botswana',
    'Indian Pines': 'indian_pines',
}
RANDOM, HALVES = '3 % (r)', '50 % (s)'
CONFIGS = {RANDOM: 'audebert2018_table2', HALVES: 'audebert2018_table2_halves'}
NAMES = {'real': '∅', 'GAN, published': 'GAN', 'ss-GAN, published': 'ss-GAN'}
"""Arms of the configuration, by their names in the paper."""
SVM = {'real_real': 'real → real', 'real_fake': 'real → fake', 'fake_fake': 'fake → fake', 'fake_real': 'fake → real'}
FIGURE_CLASSES = ('meadows', 'bare soil')
"""Of Pavia University in Fig. 4."""
SHOWN = 400  # most spectra of a class in a figure


def _study(work: Work, name: str) -> Study:
    """Table 2 on one scene: the configuration, with whatever the scale shortens."""
    scale, settings = work.settings, []
    models: list[Any] = [TASKS['spectrum'].model(one) for one in published_config(CONFIGS[RANDOM])['models']]
    for budget, config in CONFIGS.items():
        split = published_config(config)['split']
        splitter: Any = make_splitter(split['strategy'], **{**split['settings'], 'on_rare': 'drop'})
        settings.append(Setting(name, budget, replace(splitter, max_test=scale['max_test'])))
    return scene_study(
        work, name, SCENES, CONFIGS[RANDOM], tuple(settings),
        title=f'Table 2 of Audebert et al. 2018, {name}',
        classifiers=tuple(replace(model, **scale['classifier']) for model in models),
        fidelity_seeds=len(work.seeds),
    )  # fmt: skip


def _analysed(work: Work) -> str:
    """The scene of Table 1 and Fig. 4: Pavia University, or its stand-in."""
    for name in ('PaviaU', STANDS_IN):
        if name in work.found:
            return name
    raise MissingDataError('it is of PaviaU, which is missing')


def svm_table(work: Work) -> Values:
    """Table 1, in percent; all classes have the same weight everywhere."""
    name = _analysed(work)
    study = _study(work, name)
    folder, _ = work.study(study, name)
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for setting, seed in study.groups():
        for arm, file in fidelity_files(study, setting, seed, folder):
            found = read_json(file, 'the fidelity of an arm')['svm']
            where = '' if name in SCENES else f'{name}, '
            for cell, row in SVM.items():
                if found[cell] is not None:
                    values[row, f'{where}{NAMES[arm.name]}, {setting.budget}'].append(100 * found[cell])
    return values


def gain_table(work: Work) -> Values:
    """Table 2, in percent."""
    return work.scores_of(_study, 'oa', lambda row: NAMES[row['arm']], lambda row: f'{row["scene"]} {row["budget"]}')


# --- figures ----------------------------------------------------------------------------------------------------------


def _opened(work: Work, name: str) -> tuple[Group, Any]:
    """The first seed's random split of a scene, and the GAN that the study trained on it."""
    group = work.group(study := _study(work, name), name)
    return group, group.generator(study.arms[0])


def _chosen(work: Work, spec: SampleSpec, usual: tuple[str, ...]) -> list[int]:
    """The classes asked for, or the usual ones; the first classes if a scene lacks these."""
    if unknown := [name for name in work.classes if name not in spec.classes]:
        raise ValueError(f'classes: no {unknown} among those of this scene: {list(spec.classes)}')
    found = [spec.classes.index(name) for name in work.classes or usual if name in spec.classes]
    return found if len(found) > 1 else [*found, *(k for k in range(spec.num_classes) if k not in found)][:2]


def _drawn(work: Work, name: str, every: bool) -> tuple[Pair, Pair, SampleSpec]:
    """Real training spectra and as many synthetic ones, up to :data:`SHOWN` of each class, and their spec.

    Of the classes asked for, else of two, or of ``every`` class.
    """
    group, gan = _opened(work, name)
    x, label = whole(group.real)
    fake, spec = gan.sample(len(label), label, seed=0), gan.spec
    classes = list(range(spec.num_classes)) if every and not work.classes else _chosen(work, spec, ())

    def some(image: Tensor, label: Tensor) -> Pair:  # classes are numbered anew
        of_class = [(label == k).nonzero()[:, 0] for k in classes]
        rows = [found[shuffled(len(found), 0)[:SHOWN]] for found in of_class]  # at random, as in the text
        numbers = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(found) for found in rows]))
        return image[torch.cat(rows)], numbers

    few = replace(spec, classes=tuple(spec.classes[k] for k in classes))
    return some(x, label), some(fake['image'].cpu(), fake['label'].cpu()), few


def draw_moments(work: Work) -> Iterator[tuple[str, Figure]]:
    """Fig. 2; in the paper, of Pavia Centre."""
    name = 'PaviaC' if 'PaviaC' in work.found else _analysed(work)
    yield f'mean and standard deviation, {name}', plot_class_spectra(*_drawn(work, name, every=False))


def draw_components(work: Work) -> Iterator[tuple[str, Figure]]:
    """Fig. 3; in the paper, of Pavia University and Indian Pines."""
    names = [name for name in ('PaviaU', 'Indian Pines', STANDS_IN) if name in work.found]
    if not names:
        raise MissingDataError('it needs PaviaU and Indian Pines, which are missing')
    for name in names:
        real, fake, spec = _drawn(work, name, every=True)
        yield f'principal components, {name}', plot_pca(*real, *fake, spec)


def draw_interpolation(work: Work) -> Iterator[tuple[str, Figure]]:
    """Fig. 4: within the second class, and from the first to the second."""
    name = _analysed(work)
    _, gan = _opened(work, name)
    first, second = _chosen(work, gan.spec, FIGURE_CLASSES)[:2]
    alphas, named = torch.linspace(0, 1, 9), gan.spec.classes
    for title, labels, seeds in (
        (f'two samples of {named[second]}', (second, second), (0, 1)),
        (f'{named[first]} to {named[second]}, fixed noise', (first, second), (0, 0)),
    ):
        spectra = gan.interpolate(labels, alphas, seeds).cpu()
        yield f'{title}, {name}', plot_interpolation(spectra, alphas, gan.spec, title)


_SHORT: dict[Scale, dict[str, Any]] = {
    'paper': {'seeds': 10, 'gan': {}, 'classifier': {}, 'max_test': None},
    'small': {
        'seeds': 2,
        'gan': {'iterations': 1500, 'batch_size': 64, 'hidden': 128, 'lr': 0.0005},
        'classifier': {},
        'max_test': 3000,
    },
    'demo': {
        'seeds': 2,
        'gan': {'iterations': 5, 'hidden': 32, 'batch_size': 32},
        'classifier': {'steps': (20,)},
        'max_test': 300,
    },
}
_GAN_COLUMNS = tuple(f'{arm}, {budget}' for budget in (RANDOM, HALVES) for arm in ('GAN', 'ss-GAN'))

AUDEBERT2018 = Paper(
    name='audebert2018',
    citation='Audebert, Le Saux, Lefèvre: Generative Adversarial Networks for Realistic Synthesis of Hyperspectral '
    'Samples, IGARSS 2018',
    files=scene_files(SCENES),
    tables=(
        Table(
            1, 'Accuracy of a linear SVM, trained → tested, on PaviaU (%)', _GAN_COLUMNS,
            {row: (None,) * len(_GAN_COLUMNS) for row in SVM.values()}, svm_table, configs=tuple(CONFIGS.values()),
            note='Our copy of the paper lacks this table. According to its text, training on fake samples is 2 to 8 '
            'points below real → real. Here all classes have the same weight in all cells.',
        ),
        Table(
            2, 'Overall accuracy of NN 1D with one synthetic spectrum for each real one (%)',
            tuple(f'{name} {budget}' for name in SCENES for budget in (RANDOM, HALVES)),
            {
                '∅': (92.72, 86.22, 98.93, 96.26, 86.90, 84.87, 79.44, 74.00),
                'GAN': (92.95, 86.47, 99.00, 96.26, 87.72, 84.60, 80.01, 74.81),
                'ss-GAN': (93.12, 87.20, 98.93, 96.70, 88.40, 85.27, 80.42, 74.58),
            },
            gain_table, configs=tuple(CONFIGS.values()),
            note='The paper does not say how many synthetic spectra it adds, nor which halves it uses. A study '
            'validates on 30 % of the 3 %, which the paper does not: its networks train on 2.1 %.',
        ),
    ),
    figures=(
        Drawing(2, 'Mean spectrum and standard deviation per class: the paper sees noisier means and lower deviations',
                draw_moments),
        Drawing(3, 'Principal components of real and synthetic spectra: the paper sees the same clusters, deformed',
                draw_components),
        Drawing(4, 'Interpolation in the latent space: the paper sees a continuous progression', draw_interpolation),
    ),
    settings=_SHORT,
    class_figures=True,
)  # fmt: skip
