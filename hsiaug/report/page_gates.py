"""The page on a bank: what gates reject and why, and what is memorised."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..quality import GateReport
from ..quality.inspection import Compared, Memorised, Review
from .html import Card, Section, Table
from .page_cards import Drawer

LOOKS_FOR = {
    'range': 'values beyond those of real samples',
    'smoothness': 'neighbouring bands that differ too much',
    'subspace': 'shapes that no real spectrum has',
    'agreement': 'labels or masks that do not fit the image',
    'novelty': 'copies of training samples',
}
_OF_EACH = 3  # rejected samples that are shown of each gate
_NEIGHBOURS = 6
_EXACT = 1.001e-3  # in noise: what NoveltyGate takes for equal, with room for rounding
_UNIT = 'root mean square difference in units of the sensor’s noise'


def gates_section(parts: Compared, found: Review, drawer: Drawer) -> Section:
    """What was rejected by which gate, and the worst samples with the reason."""
    fake, real = found.rejected
    counts = GateReport([gate.name for gate in found.gates])
    counts.add(found.on_fake)
    section = Section('Rejected samples')
    nominal = sum(gate.false_alarm for gate in found.gates)
    section.notes.append(
        f'Gates reject {_percent(fake)} of {len(parts.rows)} synthetic samples, and {_percent(real)} of '
        f'{len(parts.test["image"])} held-out real ones. They learnt from the training and validation part alone. Each '
        'is set to reject its nominal share of new real samples like those, all together at most '
        f'{_percent(nominal)}; held-out ones lie elsewhere and may differ more.'
    )
    section.notes += [f'Not judged by {name}: {why}.' for name, why in found.missing.items()]
    rows = []
    for gate in found.gates:
        on_real = float(found.on_real.rejected[gate.name].double().mean())
        rejected = counts.rejected[gate.name]
        rows.append(
            (f'{gate.name}: {LOOKS_FOR[gate.name]}', str(rejected), _percent(rejected / len(parts.rows)),
             str(counts.alone[gate.name]), _percent(gate.false_alarm), _percent(on_real))
        )  # fmt: skip
    header = ('gate', 'rejected', 'share', 'by it alone', 'nominal', 'of held-out real')
    section.tables.append(Table(header, rows))
    section.cards = _rejected_cards(parts, found, drawer)
    if section.cards:
        section.legend = drawer.legend()
        section.above_cards = f'Of each gate the {_OF_EACH} samples that it rejects most clearly, with all reasons.'
    return section


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
        return 'cannot be judged, no pixel of it counts'
    if name == 'range':
        return f'{score:+.2f} standard deviations beyond the extremes, {limit:+.2f} allowed'
    if name == 'novelty':  # minus log distance
        distance = math.exp(-score)
        said = 'an exact copy' if distance <= _EXACT else f'distance {distance:.2g}'
        return f'{said}, at least {math.exp(-limit):.2g} times the noise wanted'
    return f'{math.exp(score):.3g} times the mean of real ones, {math.exp(limit):.3g} allowed'


def novelty_section(parts: Compared, found: Review, memorised: Memorised, drawer: Drawer) -> Section:
    """How much of the bank is memorised, and suspicious samples next to their nearest training samples."""
    known, gate, distance, nearest = memorised.counts, memorised.gate, memorised.distance, memorised.nearest
    limit = math.exp(-gate.threshold)
    on_real = float(found.on_real.rejected[gate.name].double().mean())
    section = Section('Memorised samples')
    section.notes.append(
        f'{known["memorised"]} of {known["samples"]} samples, {_percent(known["share"])}, lie nearer to a training '
        f'sample than {limit:.3g}, {_UNIT}: real samples of other places do so in {_percent(gate.false_alarm)} of all '
        f'cases (the nominal false alarm rate), and the held-out ones did in {_percent(on_real)}. '
        f'{known["exact_copies"]} are copies to the last digits.'
    )
    if limit <= _EXACT:
        section.notes.append(
            'Training samples of different places are equal to each other, so that copies of them cannot be recognised.'
        )
    elif parts.spec.size is None:
        section.notes.append(
            'Of single spectra, real ones of other places come as near to one another as noisy copies do: copies under '
            'much noise are not found among them.'
        )
    if parts.bank.provenance is None or parts.bank.provenance.split != parts.split.fingerprint:
        section.notes.append(
            'The generator is not known to have been trained on this split: copies of what else it may have seen '
            'are not found.'
        )
    header = ('distance to the nearest training sample', 'synthetic', 'training, other places')
    median = (f'{known["median_distance"]:.3g}', f'{known["median_distance_of_real"]:.3g}')
    section.tables.append(Table(header, [('smallest', f'{known["smallest_distance"]:.3g}', '–'), ('median', *median)]))
    once: dict[int, int] = {}  # of each training sample its nearest copy: one that is copied often is shown once
    for row in torch.argsort(distance, stable=True).tolist():
        once.setdefault(int(nearest[row]), row)
    order = list(once.values())[:_NEIGHBOURS]
    suspicious = [row for row in order if found.on_fake.rejected[gate.name][row]]
    section.above_cards = (
        'Suspicious samples, the nearest first, next to their nearest training samples, each of which is shown once. '
        'Mirrored and turned copies of images count too.'
        if suspicious
        else 'None is suspicious; these are nearest to training samples.'
    )
    section.legend = drawer.legend()
    for row in suspicious or order[: _NEIGHBOURS // 2]:
        section.cards.append(_neighbours(parts, drawer, row, int(nearest[row]), float(distance[row])))
    return section


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


def _percent(share: float) -> str:
    return f'{100 * share:.1f} %'
