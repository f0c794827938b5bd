"""The page on a bank: what gates reject and why, and what is memorised, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor

from ..datasets.preview import REAL, SYNTHETIC, BandAxis, class_colour, false_colour, mask_colour, stretch_limits
from ..metrics.masks import class_shares
from ..quality import GateReport
from ..quality.inspection import Compared, Memorised, Review
from ..samples import SampleSpec
from .html import Card, Cards, Part, Picture, Section, Table

LOOKS_FOR = {
    'range': 'values outside the range of real samples',
    'smoothness': 'neighbouring bands that differ too much',
    'subspace': 'shapes that no real spectrum has',
    'agreement': 'labels or masks that do not match the image',
    'novelty': 'copies of training samples',
}
_OF_EACH = 3  # rejected samples that are shown of each gate
_NEIGHBOURS = 6
_EXACT = 1.001e-3  # in noise: what NoveltyGate takes for equal, with room for rounding
_UNIT = 'root mean square difference in units of the sensor’s noise'


Sample = Mapping[str, Any]
_NAMED = 3  # classes of a mask that are named


class Drawer:
    """Draws single samples, all under one stretch and in front of the same real spectra."""

    def __init__(self, spec: SampleSpec, train: Sample) -> None:
        self.spec, self.train = spec, train
        self.limits = None if spec.size is None else stretch_limits(train['image'], spec.wavelengths)

    def sample(self, batch: Sample, row: int, synthetic: bool) -> list[Picture]:
        """One sample of a batch: its pictures, or its spectrum in front of real ones of its class."""
        if self.spec.size is None:
            return [self.spectra({'synthetic' if synthetic else 'real': batch['image'][row]}, int(batch['label'][row]))]
        of, image = 'synthetic' if synthetic else 'real', batch['image'][row]
        dates = image if self.spec.dates == 2 else image[None]
        names = [f'{of} image' + (f', date {k + 1}' if len(dates) > 1 else '') for k in range(len(dates))]
        pictures = [
            Picture.of_pixels(false_colour(date, self.spec.wavelengths, self.limits), name)
            for date, name in zip(dates, names, strict=True)
        ]
        if 'mask' in batch:
            mask = batch['mask'][row].reshape(image.shape[-2:])
            pictures.append(Picture.of_pixels(mask_colour(mask, self.spec), f'{of} mask'))
        return pictures

    def spectra(self, lines: Mapping[str, Tensor], label: int) -> Picture:
        """A few spectra, ``'real'`` or ``'synthetic'``, over what holds the middle 80 % of real ones of a class."""
        figure = Figure(figsize=(3.4, 1.9))  # there are many: a layout that is worked out would take longest
        axes = figure.subplots(gridspec_kw={'left': 0.16, 'right': 0.97, 'bottom': 0.26, 'top': 0.95})
        bands = BandAxis(self.spec)
        x = bands.broken(bands.x)
        mine = self.train['image'][self.train['label'] == label].numpy()
        if len(mine):
            low, high = (bands.broken(edge) for edge in np.quantile(mine, [0.1, 0.9], axis=0))
            axes.fill_between(x, low, high, color=REAL, alpha=0.18, lw=0)
        for name, spectrum in lines.items():
            dash = '--' if name == 'real' else '-'
            axes.plot(x, bands.broken(spectrum.numpy()), dash, color=REAL if name == 'real' else SYNTHETIC, lw=1.2)
        bands.label(axes)
        axes.locator_params(nbins=4)
        return Picture.of_figure(figure, f'spectrum: {" and ".join(lines)}, over real ones of the class')

    def classes(self, batch: Sample, row: int) -> str:
        """What a sample shows, in words."""
        spec = self.spec
        target = batch[spec.target_key][row]
        if spec.target_key == 'label':
            return spec.classes[int(target)]
        shares = class_shares(target.reshape(1, *target.shape[-2:]), spec.num_classes, spec.ignore_index)
        if not shares.isfinite().all():
            return 'no pixel that counts'
        order = [k for k in torch.argsort(shares, descending=True).tolist() if shares[k] > 0]
        said = [f'{spec.classes[k]} {100 * shares[k]:.0f}\xa0%' for k in order[:_NAMED]]
        return ', '.join(said) + (f' and {len(order) - _NAMED} more' if len(order) > _NAMED else '')

    def legend(self) -> list[tuple[str, str]]:
        """Names and colours of what the pictures show."""
        if self.spec.size is None:
            return [('synthetic', SYNTHETIC), ('real', REAL)]
        if self.spec.target_key == 'label':
            return []
        return [(name, to_hex(class_colour(k))) for k, name in enumerate(self.spec.classes)]


def gates_section(parts: Compared, found: Review, drawer: Drawer) -> Section:
    """What was rejected by which gate, and the worst samples with the reason."""
    fake, real = found.rejected
    counts = GateReport([gate.name for gate in found.gates])
    counts.add(found.on_fake)
    nominal = sum(gate.false_alarm for gate in found.gates)
    shown: list[Part] = [
        f'Gates reject {percent(fake)} of {len(parts.rows)} synthetic samples, and {percent(real)} of '
        f'{len(parts.test["image"])} held-out real ones. They learnt from the training and validation part only. Each '
        'is set to reject a nominal share of new real samples like those, together at most '
        f'{percent(nominal)}; held-out samples come from other places and may differ more.',
        *(f'Not judged by {name}: {why}.' for name, why in found.missing.items()),
    ]
    rows = []
    for gate in found.gates:
        on_real = float(found.on_real.rejected[gate.name].double().mean())
        rejected = counts.rejected[gate.name]
        rows.append(
            (f'{gate.name}: {LOOKS_FOR[gate.name]}', str(rejected), percent(rejected / len(parts.rows)),
             str(counts.alone[gate.name]), percent(gate.false_alarm), percent(on_real))
        )  # fmt: skip
    header = ('gate', 'rejected', 'share', 'by this gate only', 'nominal share', 'share of held-out real')
    shown.append(Table(header, rows))
    if cards := _rejected_cards(parts, found, drawer):
        shown.append(f'The {_OF_EACH} samples that each gate rejects most clearly, with all reasons.')
        shown.append(Cards(drawer.legend(), cards))
    return Section('Rejected samples', shown)


def _rejected_cards(parts: Compared, found: Review, drawer: Drawer) -> list[Card]:
    rows: list[int] = []
    for gate in found.gates:
        score = found.on_fake.scores[gate.name].nan_to_num(nan=math.inf)
        worst = torch.argsort(score, descending=True, stable=True)
        mine = [row for row in worst.tolist() if found.on_fake.rejected[gate.name][row] and row not in rows]
        rows += mine[:_OF_EACH]
    cards = []
    reasons = found.on_fake.reasons()
    limits = {gate.name: gate.threshold for gate in found.gates}
    for row in rows:
        lines = [
            f'{name}: {LOOKS_FOR[name]} ({_how(name, float(found.on_fake.scores[name][row]), limits[name])})'
            for name in reasons[row]
        ]
        title = f'sample {parts.rows[row]}: {drawer.classes(parts.fake, row)}'
        cards.append(Card(title, [drawer.sample(parts.fake, row, True)], lines))
    return cards


def _how(name: str, score: float, limit: float) -> str:
    """A score and its limit, in the unit that the gate's docstring gives."""
    if score != score:
        return 'cannot be judged: all its pixels are ignored'
    if name == 'range':
        return f'{score:+.2f} standard deviations beyond the extremes; {limit:+.2f} allowed'
    if name == 'novelty':  # minus log distance
        distance = math.exp(-score)
        said = 'an exact copy' if distance <= _EXACT else f'distance {distance:.2g}'
        return f'{said}; at least {math.exp(-limit):.2g} times the noise required'
    return f'{math.exp(score):.3g} times the mean of real samples; {math.exp(limit):.3g} allowed'


def novelty_section(parts: Compared, found: Review, memorised: Memorised, drawer: Drawer) -> Section:
    """How much of the bank is memorised, and suspicious samples next to their nearest training samples."""
    known, gate, distance, nearest = memorised.counts, memorised.gate, memorised.distance, memorised.nearest
    limit = math.exp(-gate.threshold)
    on_real = float(found.on_real.rejected[gate.name].double().mean())
    shown: list[Part] = [
        f'{known["memorised"]} of {known["samples"]} samples, {percent(known["share"])}, are closer to a training '
        f'sample than {limit:.3g}, {_UNIT}. Nominally, {percent(gate.false_alarm)} of real samples from other places '
        f'are that close (the false alarm rate); of the held-out ones, {percent(on_real)} are. '
        f'Exact copies: {known["exact_copies"]}.'
    ]
    if limit <= _EXACT:
        shown.append(
            'Training samples from different places are identical, so that copies of them cannot be recognised.'
        )
    elif parts.spec.size is None:
        shown.append(
            'Single real spectra from different places can be as close to each other as noisy copies: copies with much '
            'noise are not found.'
        )
    if parts.bank.provenance is None or parts.bank.provenance.split != parts.split.fingerprint:
        shown.append(
            'The generator may not have been trained on this split: copies of other samples it has seen are not found.'
        )
    header = ('distance to the nearest training sample', 'synthetic', 'training, other places')
    median = (f'{known["median_distance"]:.3g}', f'{known["median_distance_of_real"]:.3g}')
    shown.append(Table(header, [('smallest', f'{known["smallest_distance"]:.3g}', '–'), ('median', *median)]))
    once: dict[int, int] = {}  # of each training sample its nearest copy: one that is copied often is shown once
    for row in torch.argsort(distance, stable=True).tolist():
        once.setdefault(int(nearest[row]), row)
    order = list(once.values())[:_NEIGHBOURS]
    suspicious = [row for row in order if found.on_fake.rejected[gate.name][row]]
    shown.append(
        'Suspicious samples, the closest first, next to their nearest training samples, each of which is shown once.'
        + (' Flipped and rotated copies count too.' if parts.spec.size else '')
        if suspicious
        else 'None is suspicious; these are closest to training samples.'
    )
    cards = [
        _neighbours(parts, drawer, row, int(nearest[row]), float(distance[row]))
        for row in suspicious or order[: _NEIGHBOURS // 2]
    ]
    return Section('Memorised samples', [*shown, Cards(drawer.legend(), cards)])


def _neighbours(parts: Compared, drawer: Drawer, row: int, nearest: int, distance: float) -> Card:
    lines = (
        f'distance {distance:.3g}' + (', an exact copy' if distance <= _EXACT else ''),
        f'nearest training sample: {drawer.classes(parts.train, nearest)}, {parts.place(nearest)}',
    )
    if parts.spec.size is None:
        both: dict[str, Tensor] = {'synthetic': parts.fake['image'][row], 'real': parts.data.x[nearest]}
        pictures = [[drawer.spectra(both, int(parts.data.y[nearest]))]]
    else:
        pictures = [drawer.sample(parts.fake, row, True), drawer.sample(parts.train, nearest, False)]
    return Card(f'sample {parts.rows[row]}: {drawer.classes(parts.fake, row)}', pictures, lines)


def percent(share: float | None, digits: int = 1) -> str:
    """A share, or a dash."""
    return '–' if share is None else f'{100 * share:.{digits}f} %'
