"""SpecDM: image-mask pairs and pairs of dates by two-stream latent diffusion, and what networks gain from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ..datasets import MixedDataset
from ..datasets.contract.batches import fetch
from ..named_configs import published_config
from ..report.evaluation import FIGURES
from ..systems import TrainingData
from ..systems.data import data_of
from ..tasks import Evaluation, Task, task_of
from ..tasks.base import finite, on_cpu
from ..tasks.downstream import Downstream
from .base import Drawing, Paper, Scale, Table, Values, Work, kept
from .specdm_data import FILES, Which, part_of, present

CONFIGS: dict[Which, tuple[str, ...]] = {
    'SS': ('specdm_table5', 'specdm_table4'),
    'CD': ('specdm_change_table5', 'specdm_change_table4'),
}
"""The first one also gives split, networks and ratios."""
LDM, OURS, WITHOUT = 'single stream', 'two-stream', 'two-stream, no SAD'


@dataclass(frozen=True)
class _Data:
    """Training data of the generators, the few real samples of the studies, and test samples; in memory."""

    task: Task
    learnt: TrainingData
    real: Any
    test: Any
    seed: int
    inception: Path | None

    @cached_property
    def fidelity(self) -> Callable[[Any], dict[str, Any]]:
        """Measures the fidelity of a generator; the encoder is trained once."""
        return self.task.study_fidelity(self.real, self.test, self.seed, self.inception)

    def arm(self, work: Work, which: Which, name: str) -> Any:
        """A trained generator."""
        arms = [arm for config in CONFIGS[which] for arm in published_config(config)['arms']]
        settings = next(arm['settings'] for arm in arms if arm['name'] == name)
        file = f'{which}-{name}'.replace(', ', '-').replace(' ', '-')
        settings = {**settings, **work.settings['diffusion']}
        return work.generator(file, 'two_stream_diffusion', self.learnt, settings, self.seed)


def _held(dataset: Any, rows: np.ndarray) -> Any:
    batch, spec = fetch(dataset, rows), dataset.spec
    return task_of(spec).hold(batch['image'], batch[spec.target_key], spec)


@kept
def _data(work: Work, which: Which, seed: int) -> _Data:
    train, test = (part_of(work, which, split) for split in ('train', 'test'))
    most = min(len(train), published_config(CONFIGS[which][0])['split']['settings']['max_train'])
    tested = np.arange(min(len(test), work.settings['max_test']))
    task, drawn = task_of(train.spec), np.random.default_rng(seed).permutation(len(train))[:most]
    learnt = data_of(train, generator='two_stream_diffusion')
    return _Data(task, learnt, _held(train, drawn), _held(test, tested), seed, work.inception)


# --- Tables 1, 2 and 4 ------------------------------------------------------------------------------------------------


def _fidelity(work: Work, which: Which, arm: str, seed: int) -> Mapping[str, float]:
    """Distances to training samples, as papers report them, and reconstruction errors of test samples."""

    def measure() -> dict[str, float]:
        data = _data(work, which, seed)
        found = finite(data.fidelity(data.arm(work, which, arm)))
        dates = [found] if which == 'SS' else [found['first'], found['second'], found['both']]
        scores = {f'fid_image{n}': date['against_train']['fid_image'] for n, date in enumerate(dates, start=1)}
        scores |= {'fid_mask': dates[-1]['against_train']['fid_mask'], 'msad': dates[0]['against_train']['msad']}
        return {name: value for name, value in {**scores, **found['reconstruction']}.items() if value is not None}

    return work.scored(['fidelity', which, arm, seed, sorted(work.found), *work.features], measure)


def _fidelity_table(work: Work, rows: Mapping[str, tuple[Which, str]], columns: Mapping[str, str]) -> Values:
    """A table whose rows are arms and whose columns are scores of :func:`_fidelity`."""
    there = present(work)
    measured = {row: partial(_fidelity, work, which, arm) for row, (which, arm) in rows.items() if which in there}
    if not measured:
        which, _ = next(iter(rows.values()))
        _data(work, which, 0)  # raises the error that says what is missing
    return work.measured(measured, columns)


# --- Tables 3, 5 and 6 ------------------------------------------------------------------------------------------------


def _networks(work: Work, which: Which, task: Task) -> list[Downstream]:
    """Networks of the configuration, shrunk by the scale; the first is that of Tables 5 and 6."""
    listed = published_config(CONFIGS[which][0])['models']
    smaller = work.settings['networks'].get(which, {})
    listed = [{**one, 'config': {**one['config'], **smaller}} for one in listed]
    return [task.model(one) for one in (listed[:1] if smaller else listed)]


def _gain(work: Work, which: Which, network: int, arm: str, ratio: int, seed: int, only: bool = False) -> Any:
    """MIoU and F1 on test samples of a network trained on real and synthetic samples, or on synthetic ones ``only``."""

    def measure() -> dict[str, float]:
        data = _data(work, which, seed)
        spec, model = data.real.spec, _networks(work, which, data.task)[network]
        learnt = data.real
        if ratio:
            source = data.arm(work, which, arm)
            drawn = data.task.drawn(source, ratio * len(data.real), seed, 'real', spec)
            learnt = drawn if only else MixedDataset(data.real, drawn, ratio=ratio, seed=seed)
        scores = work.trained_scores(model, learnt, data.test, seed)
        f1 = scores['mf1' if which == 'CD' else 'f1']
        return {'mIoU': scores['miou'], 'F1': f1, 'still_falls': scores['still_falls']}

    key = ['gain', which, network, arm if ratio else '', ratio, only, seed, sorted(work.found)]
    named = f'{which}, network {network + 1}, {arm or "real"}, ratio {ratio}{", synthetic only" if only else ""}'
    return work.scored(key, measure, named)


def _gains(work: Work, rows: Mapping[str, tuple[str, int]]) -> Values:
    """Scores of the first network, a row for each arm and ratio."""
    values: dict[tuple[str, str], Sequence[float]] = {}
    for which in present(work):
        measured = {row: partial(_gain, work, which, 0, arm, ratio) for row, (arm, ratio) in rows.items()}
        values |= work.measured(measured, {f'{which} {metric}': metric for metric in ('mIoU', 'F1')})
    return values


def downstream_table(work: Work) -> Values:
    """Table 3: real, synthetic and both, for every network."""
    kinds = {'real': (0, False), 'synthetic': (5, True), 'real + synthetic': (5, False)}
    rows = {}
    for which in present(work):
        for number, network in enumerate(_networks(work, which, _data(work, which, work.seeds[0]).task)):
            for kind, (ratio, only) in kinds.items():
                rows[f'{network.name}: {kind}'] = partial(_gain, work, which, number, OURS, ratio, only=only)
    return work.measured(rows, {'mIoU': 'mIoU', 'F1': 'F1'})


def sizes_table(work: Work) -> Values:
    """Table 6."""
    ratios = [round(ratio) for ratio in published_config(CONFIGS['SS'][0])['ratios']]
    return _gains(work, {'Baseline': ('', 0), **{f'{ratio} ×': (OURS, ratio) for ratio in ratios}})


# --- figures ----------------------------------------------------------------------------------------------------------


def _shown(
    work: Work, which: Which, names: Mapping[str, str], arms: tuple[str, ...] = (OURS,)
) -> Iterator[tuple[str, Figure]]:
    """Figures of an evaluation, by name with their captions, for the first seed's generators."""
    data = _data(work, which, work.seeds[0])
    spec = data.real.spec
    for arm in arms:
        count = min(len(data.real), data.task.fidelity_samples)  # type: ignore[attr-defined]
        fake = on_cpu(data.arm(work, which, arm).sample(count, seed=0))
        held = {'real, training': data.real, 'real, test': data.test}
        sides: dict[str, dict[str, Tensor]] = {n: {'image': s.image, 'mask': s.mask} for n, s in held.items()}
        figures = FIGURES[spec.kind](Evaluation(spec, {**sides, 'synthetic': fake}, {}))
        for name, caption in names.items():
            yield f'{caption}, {"LDM" if arm == LDM else "two-stream"}', figures[name]


_TINY = {
    'downsampling': 2, 'vae_channels': 4, 'vae_layers': 1, 'vae_attention': False, 'unet_channels': [8, 16],
    'unet_layers': 1, 'unet_attention': False, 'sampler': 'dpm++', 'sampling_steps': 2, 'vae_iterations': 2,
    'diffusion_iterations': 2, 'vae_batch_size': 2, 'batch_size': 4,
}  # fmt: skip
_SMALL = {
    **_TINY, 'vae_channels': 16, 'unet_channels': [16, 32], 'sampling_steps': 20, 'vae_iterations': 250,
    'diffusion_iterations': 300, 'vae_batch_size': 4, 'batch_size': 16, 'vae_lr': 0.002, 'diffusion_lr': 0.002,
    'ema_decay': 0.99, 'lr_decay': True,
}  # fmt: skip
_SEGFORMER = {
    'encoder': 'mit_tiny', 'mapping': False, 'encoder_weights': None, 'upsampling': 2, 'channels': 32, 'steps': 120,
    'learning_rate': 0.003,
}  # fmt: skip
_CHANGEFORMER = {'encoder': 'mit_tiny', 'channels': 32, 'steps': 120, 'learning_rate': 0.003}
_SHORT = {'channels': 8, 'steps': 2, 'batch_size': 4}
_SETTINGS: dict[Scale, dict[str, Any]] = {
    'paper': {'seeds': 5, 'size': 128, 'max_test': 6000, 'diffusion': {}, 'networks': {}},
    'small': {
        'seeds': 2, 'size': 32, 'max_test': 1000, 'diffusion': _SMALL,
        'networks': {'SS': _SEGFORMER, 'CD': _CHANGEFORMER},
    },
    'demo': {
        'seeds': 1, 'size': 32, 'max_test': 8, 'diffusion': _TINY,
        'networks': {'SS': {**_SEGFORMER, **_SHORT}, 'CD': {**_CHANGEFORMER, **_SHORT}},
    },
}  # fmt: skip
_STUDIES = tuple(names[0] for names in CONFIGS.values())
_FOUR = ('SS mIoU', 'SS F1', 'CD mIoU', 'CD F1')
_BASELINE = (0.3574, 0.4852, 0.5460, 0.6274)
_NOTHING: tuple[float | None, ...] = (None,) * 2
_DATES = {'FID (Image1)': 'fid_image1', 'FID (Image2)': 'fid_image2', 'FID (Mask)': 'fid_mask'}
_FEATURES = (
    'Our features are not those of the paper, and masks are compared by the classes that they hold: the order of '
    'rows may be compared, not the values.'
)
_F1 = 'F1 of change detection is the mean over both classes here; the paper does not say which one it reports.'

SPECDM = Paper(
    name='specdm',
    citation='SpecDM: Hyperspectral Dataset Synthesis with Pixel-level Semantic Annotations, 2025',
    files=FILES,
    tables=(
        Table(
            1, 'Quality of image-mask pairs', ('FID (Image)', 'FID (Mask)', 'mSAD'),
            {'LDM-SS': (70.44, 50.01, 0.13), 'Ours-SS': (5.19, 10.79, 0.03)},
            partial(_fidelity_table, rows={'LDM-SS': ('SS', LDM), 'Ours-SS': ('SS', OURS)},
                    columns={'FID (Image)': 'fid_image1', 'FID (Mask)': 'fid_mask', 'mSAD': 'msad'}), note=_FEATURES,
            configs=('specdm', 'specdm_table5'),
            otherwise=('FID',),
        ),
        Table(
            2, 'Quality of pairs of dates', ('FID (Image1)', 'FID (Image2)', 'FID (Mask)'),
            {'LDM-CD': (40.21, 45.99, 11.90), 'Ours-CD': (10.15, 10.74, 0.05)},
            partial(_fidelity_table, rows={'LDM-CD': ('CD', LDM), 'Ours-CD': ('CD', OURS)}, columns=_DATES),
            note=_FEATURES,
            configs=('specdm_change', 'specdm_change_table5'),
            otherwise=('FID',),
        ),
        Table(
            3, 'Networks trained on real data, synthetic data and both', ('mIoU', 'F1'),
            {
                f'{network}: {row}': _NOTHING
                for network in ('SegFormer-B5', 'PFSegNet-R50', 'ChangeFormer V3', 'ChangeFormer V6', 'SiamCRNN-R18',
                                'SiamCRNN-R101')
                for row in ('real', 'synthetic', 'real + synthetic')
            },
            downstream_table, digits=4, configs=_STUDIES,
            note=f'The numbers of this table are missing from our copy of the paper. {_F1}',
        ),
        Table(
            4, 'With and without the spectral angle in the loss',
            ('RMSE', 'SAD', 'Cross Entropy', 'FID (Image1)', 'FID (Image2)', 'FID (Mask)'),
            {
                'Ours-SS w/o SAD loss': (0.072, 0.217, 0.031, 21.05, None, 15.12),
                'Ours-SS': (0.025, 0.103, 0.051, 5.19, None, 10.79),
                'Ours-CD w/o SAD loss': (0.051, 0.179, 0.020, 31.30, 32.49, 0.26),
                'Ours-CD': (0.034, 0.086, 0.014, 10.15, 10.74, 0.05),
            },
            partial(_fidelity_table,
                    rows={'Ours-SS w/o SAD loss': ('SS', WITHOUT), 'Ours-SS': ('SS', OURS),
                          'Ours-CD w/o SAD loss': ('CD', WITHOUT), 'Ours-CD': ('CD', OURS)},
                    columns={'RMSE': 'rmse', 'SAD': 'sad', 'Cross Entropy': 'cross_entropy', **_DATES}),
            digits=3, configs=('specdm_table4', 'specdm_change_table4'),
            note='Reconstruction of test samples; RMSE is in the unit of the files, angles are in radians. The text '
            f'does not say which samples, nor in what units. {_FEATURES}', otherwise=('FID', 'RMSE'),
        ),
        Table(
            5, 'Networks with five times as much synthetic data', _FOUR,
            {
                'Baseline': _BASELINE, 'LDM': (0.3499, 0.4803, 0.5341, 0.5975),
                'Ours': (0.3772, 0.5092, 0.5733, 0.6617),
            },
            partial(_gains, rows={'Baseline': ('', 0), 'LDM': (LDM, 5), 'Ours': (OURS, 5)}),
            digits=4, configs=_STUDIES, note=_F1,
        ),
        Table(
            6, 'Networks with more and more synthetic data', _FOUR,
            {
                'Baseline': _BASELINE, 'first ratio (lost)': (0.3664, 0.4942, 0.5666, 0.6546),
                'second ratio (lost)': (0.3757, 0.5086, 0.5694, 0.6561), '5 ×': (0.3772, 0.5092, 0.5733, 0.6617),
            },
            sizes_table, digits=4, configs=_STUDIES,
            note=f'Two of three ratios are missing from our copy of the paper; the last is that of Table 5. {_F1}',
        ),
    ),
    figures=(
        Drawing(2, 'Pairs: the paper sees the spatial distribution of real ones, and masks that fit the edges',
                partial(_shown, which='SS', names={'pairs': 'pairs'}, arms=(OURS, LDM))),
        Drawing(3, 'Spectral profiles: the paper finds them consistent with real ones',
                partial(_shown, which='SS', names={'class_profiles': 'profiles'})),
        Drawing(4, 'Shares of classes: the paper finds them near to real ones with its model, far with LDM',
                partial(_shown, which='SS', names={'class_shares': 'shares'}, arms=(OURS, LDM))),
        Drawing(5, 'Pairs of dates: the paper sees masks that fit the changes',
                partial(_shown, which='CD', names={'pairs': 'pairs of dates'})),
    ),
    settings=_SETTINGS,
    encoder='a network that learnt the classes of the training part',
    note='Figure 1 shows the method. Lost in the text at hand: the size of patches, 128 pixels here, and so 237 and 86 '
    'pairs of OSCD, of which there are more; learning rates, the number of steps of diffusion, 1000 here, and the '
    'factor of the autoencoders, 4 here. Of SegMunich, pairs of background alone are left out; the text leaves out '
    'those that hold a lot of it.',
)  # fmt: skip
