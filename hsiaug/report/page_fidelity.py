"""Fidelity of a bank on its page: measures against held-out real samples, with intervals, and coverage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

from ..ablation.scene_cells import mean_spectra
from ..functional.spectral import spectral_angle
from ..metrics import change_fidelity, fidelity, patch_fidelity
from ..metrics.patches import Encoder, Pair, PatchFidelity, class_moments
from ..quality import Coverage
from ..trainers.patch_encoder import train_date_encoder, train_patch_encoder
from .change_evaluation import DIFFERENCES, OF_BOTH, OF_DATE
from .html import Section, Table
from .page_parts import Parts, as_pairs, pair_spec, target_key, thinned
from .patch_evaluation import ROWS, format_number
from .scene_evaluation import OF_IMAGES

PARTS = 5
"""Parts of the samples that are left out in turn."""
_SHARES = ('precision', 'recall', 'coverage', 'class_share_error', 'cooccurrence_error')
_MOST = 2000  # real samples whose coverage is measured


class Value(NamedTuple):
    """A measure of synthetic samples.

    Args:
        synthetic: its value.
        real: that of real samples in their place, the best to hope for.
        ideal: in words.
        most: what it cannot exceed.
    """

    synthetic: float
    real: float
    ideal: str = 'as real'
    most: float = math.inf


Measure = Callable[[Pair, Pair], Mapping[str, Value]]
"""Of held-out real and of synthetic samples, by what is measured."""


@dataclass(frozen=True)
class Measured:
    """A measure with its interval.

    Args:
        value: of all samples.
        interval: 95 %, None where there are too few samples.
    """

    value: Value
    interval: tuple[float, float] | None


def with_intervals(measure: Measure, test: Pair, fake: Pair, parts: int, seed: int = 0) -> dict[str, Measured]:
    """Measures with delete-a-group jackknife intervals (Shao and Tu 1995): t of ``parts`` − 1 degrees of freedom.

    Each part, a random share of the synthetic and of the held-out real samples alike, is left out in turn. Samples
    count as independent; neighbouring ones are not, and the intervals are rather too narrow for that.

    Args:
        measure: see :data:`Measure`.
        test: held-out real images and targets.
        fake: synthetic ones.
        parts: how many parts.
        seed: of the parts.
    """
    whole = measure(test, fake)
    rng = torch.Generator().manual_seed(seed)
    deals = [torch.randperm(len(side[0]), generator=rng) % parts for side in (test, fake)]
    without: list[Mapping[str, Value]] = []
    if min(len(test[0]), len(fake[0])) >= 2 * parts:
        for k in range(parts):
            left = [(side[0][deal != k], side[1][deal != k]) for side, deal in zip((test, fake), deals, strict=True)]
            without.append(measure(left[0], left[1]))
    found = {}
    for name, value in whole.items():
        values = torch.tensor([each[name].synthetic for each in without], dtype=torch.float64)
        interval = None
        if len(values) and values.isfinite().all():
            error = math.sqrt((parts - 1) * float(values.var(correction=0)))
            half = float(student.ppf(0.975, parts - 1)) * error
            interval = max(value.synthetic - half, 0.0), min(value.synthetic + half, value.most)  # none is negative
        found[name] = Measured(value, interval)
    return found


# --- by kind ----------------------------------------------------------------------------------------------------------


_SVM = {
    'real_fake': 'linear SVM trained on real, accuracy on synthetic samples',
    'fake_real': 'linear SVM trained on synthetic, accuracy on held-out real samples',
    'fake_fake': 'linear SVM trained on synthetic, accuracy on others of them',
}


def spectra_measure(train: Pair, num_classes: int) -> Measure:
    """Measures of spectra (n, C) with labels (n,)."""

    def moments(pair: Pair) -> tuple[Tensor, Tensor]:
        return class_moments(pair[0][:, :, None, None], pair[1][:, None, None], num_classes)

    known = moments(train)

    def measure(test: Pair, fake: Pair) -> dict[str, Value]:
        (mean, spread), drawn = moments(test), moments(fake)
        angles, spreads = [], []
        for side_mean, side_spread in (drawn, known):
            angles.append(float(spectral_angle(mean, side_mean).nanmean()))
            spreads.append(float((side_spread.mean(dim=1) / spread.mean(dim=1)).nanmedian()))
        result, best = fidelity(train, test, fake, num_classes), fidelity(train, test, test, num_classes)
        return {
            ROWS['msad'][0]: Value(angles[0], angles[1], ROWS['msad'][1]),
            ROWS['std_ratio'][0]: Value(spreads[0], spreads[1], ROWS['std_ratio'][1]),
            'band-to-band roughness, over that of training spectra': Value(
                result.roughness_ratio, best.roughness_ratio, '1'
            ),
            'nearer to a training spectrum than that one’s neighbour (share)': Value(
                result.closer_than_real, best.closer_than_real, most=1.0
            ),
            **{name: Value(result.svm[key], result.svm['real_real'], most=1.0) for key, name in _SVM.items()},
        }

    return measure


def _of_pairs(result: PatchFidelity, fields: Sequence[str], prefix: str = '') -> dict[str, Value]:
    return {
        prefix + ROWS[field][0]: Value(
            getattr(result, field),
            getattr(result.real_reference, field),
            ROWS[field][1],
            1.0 if field in _SHARES else math.inf,
        )
        for field in fields
    }


def _measure(parts: Parts, seed: int) -> tuple[Measure, Pair, Pair]:
    """What is measured of the samples of a kind, held-out real samples and synthetic ones."""
    spec, key = parts.spec, target_key(parts.spec)
    _, held_out, drawn = parts.sides().values()
    test, fake = ((side['image'], side[key]) for side in (held_out, drawn))
    train = parts.data.x, parts.data.y
    if spec.kind == 'change':
        dates: Encoder = train_date_encoder(*train, spec.ignore_index, seed)

        def of_changes(test: Pair, fake: Pair) -> dict[str, Value]:
            result = change_fidelity(train, test, fake, spec, dates, seed)
            differences = {
                f'differences between dates, {name}': Value(
                    getattr(result.differences, field), getattr(result.real_differences, field), '0'
                )
                for field, name in DIFFERENCES.items()
            }
            return {
                **_of_pairs(result.first, OF_DATE, 'date 1: '), **_of_pairs(result.second, OF_DATE, 'date 2: '),
                **_of_pairs(result.both, OF_BOTH, 'both dates: '), **differences,
            }  # fmt: skip

        return of_changes, test, fake
    plain = pair_spec(spec)
    known = as_pairs(parts.train, spec)
    encoder: Encoder = train_patch_encoder(*known, spec.num_classes, spec.ignore_index, seed)
    fields = OF_IMAGES if spec.kind == 'scene' else tuple(ROWS)

    def of_images(test: Pair, fake: Pair) -> dict[str, Value]:
        sides = [as_pairs({'image': image, key: target}, spec) for image, target in (test, fake)]
        return _of_pairs(patch_fidelity(known, sides[0], sides[1], plain, encoder, seed), fields)

    return of_images, test, fake


def fidelity_section(parts: Parts, per_class: int, seed: int = 0) -> tuple[Section, dict[str, Measured]]:
    """The table of measures, and what it holds.

    Args:
        parts: what is compared.
        per_class: samples of a class at most that spectra, and the mean spectra of labelled images, are measured with.
        seed: of the encoder and of what is drawn at random.
    """
    spec, found = parts.spec, dict[str, Measured]()
    section = Section('Fidelity')
    if spec.kind != 'spectrum':
        found |= with_intervals(*_measure(parts, seed), PARTS, seed)
    if spec.kind in ('spectrum', 'scene'):
        sides = [(side['image'], side['label']) for side in parts.sides().values()]
        spectra = [(image if spec.kind == 'spectrum' else mean_spectra(image), label) for image, label in sides]
        train, test, fake = (thinned(side, per_class, seed) for side in spectra)
        of_spectra = with_intervals(spectra_measure(train, spec.num_classes), test, fake, PARTS, seed)
        found |= {(name if spec.kind == 'spectrum' else f'mean spectra: {name}'): v for name, v in of_spectra.items()}
        section.notes.append(
            f'{"Spectra" if spec.kind == "spectrum" else "Mean spectra"}: {len(fake[0])} synthetic, {len(train[0])} '
            f'training and {len(test[0])} held-out ones, at most {per_class} of a class and side.'
        )
    if spec.kind != 'spectrum':
        section.notes.append(
            'Fréchet distances are biased upwards, by more the fewer samples there are: those of real samples, from '
            'equal numbers, are what they can be compared with.'
        )
    rows = [
        (name, format_number(v.synthetic), format_interval(one.interval), format_number(v.real), v.ideal)
        for name, one in found.items()
        for v in (one.value,)
    ]
    section.notes.insert(
        0,
        'Synthetic against held-out real samples, and beside it what real samples reach in their place, the best to '
        f'hope for. The intervals come from leaving out one of {PARTS} parts of the synthetic and '
        'of the held-out samples in turn (delete-a-group jackknife, 95 %); they take samples for independent, and the '
        'generator as it is: they do not tell how another training would have turned out.',
    )
    section.tables.append(Table(('measure', 'synthetic', '95 % interval', 'real', 'ideal'), rows))
    return section, found


def format_interval(interval: tuple[float, float] | None) -> str:
    """An interval in words, or a dash."""
    if interval is None:
        return '–'
    return ' to '.join(format_number(end) if end else '0' for end in interval)


# --- coverage ---------------------------------------------------------------------------------------------------------


def coverage_section(parts: Parts, k: int = 5) -> tuple[Section, tuple[float, float]]:
    """Which held-out real modes the bank covers, beside what training samples cover; and both shares of all."""
    train, test, fake = parts.sides().values()
    held_out = {key: value[:: max(1, -(-len(value) // _MOST))] for key, value in test.items()}
    key = target_key(parts.spec)
    coverage = Coverage(k).fit(replace(parts.data, x=held_out['image'], y=held_out[key]))
    count = min(len(train['image']), len(fake['image']))
    rng = torch.Generator().manual_seed(0)
    sides = []
    for side in (fake, train):  # the more samples, the more they cover: as many of both
        some = torch.randperm(len(side['image']), generator=rng)[:count]
        sides.append(coverage.report({name: side[name][some] for name in ('image', key)}))
    features = 'spectra as they are'
    if parts.spec.size:
        features = 'mean and standard deviation of each band' + (', class shares' if key == 'mask' else '')
    section = Section('Coverage of real modes')
    section.notes.append(
        f'Share of {len(held_out["image"])} held-out real samples that have one of {count} synthetic samples within '
        f'reach, which is the distance to their {k}th real neighbour (Naeem et al. 2020); beside it the same of '
        f'{count} training samples. Compared are {features}, in up to 16 principal components.'
    )
    rows = [('all classes', *(_percent(side['coverage']) for side in sides))]
    rows += [(name, *(_percent(side['by_class'][name]) for side in sides)) for name in parts.spec.classes]
    section.tables.append(Table(('class', 'synthetic', 'training'), rows))
    return section, (sides[0]['coverage'], sides[1]['coverage'])


def _percent(share: float | None) -> str:
    return '–' if share is None else f'{100 * share:.0f} %'
