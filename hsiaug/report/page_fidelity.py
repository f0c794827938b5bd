"""The page on a bank: fidelity with intervals, and coverage."""

from __future__ import annotations

from ..quality.inspection import PARTS, BankFidelity, Covered
from ..samples import SampleSpec
from .fidelity_text import format_number
from .html import Section, Table


def fidelity_section(found: BankFidelity) -> Section:
    """The table of measures."""
    section = Section('Fidelity')
    section.notes.append(
        'Synthetic against held-out real samples, with what real samples reach in their place, the best to '
        f'hope for. The intervals come from leaving out one of {PARTS} parts of the synthetic and '
        'of the held-out samples in turn (delete-a-group jackknife, 95 %); they take samples for independent, and the '
        'generator as it is: they do not tell how another training would have turned out.'
    )
    for what, (train, test, fake) in found.thinned.items():
        section.notes.append(
            f'{what}: {fake} synthetic, {train} training and {test} held-out ones, at most {found.per_class} of a '
            'class and side.'
        )
    if found.frechet:
        section.notes.append(
            'Fréchet distances are biased upwards, by more the fewer samples there are: those of real samples, from '
            'equal numbers, are what they can be compared with.'
        )
    rows = [
        (name, format_number(v.synthetic), format_interval(one.interval), format_number(v.real), v.ideal)
        for name, one in found.values.items()
        for v in (one.value,)
    ]
    section.tables.append(Table(('measure', 'synthetic', '95 % interval', 'real', 'ideal'), rows))
    return section


def format_interval(interval: tuple[float, float] | None) -> str:
    """An interval in words, or a dash."""
    if interval is None:
        return '–'
    return ' to '.join(format_number(end) if end else '0' for end in interval)


def coverage_section(found: Covered, spec: SampleSpec) -> Section:
    """Which held-out real modes the bank covers, compared with what training samples cover."""
    features = 'spectra as they are'
    if spec.size:
        features = 'mean and standard deviation of each band' + (', class shares' if spec.target_key == 'mask' else '')
    section = Section('Coverage of real modes')
    section.notes.append(
        f'Share of {found.held_out} held-out real samples that have one of {found.count} synthetic samples within '
        f'reach, which is the distance to their {found.k}th real neighbour (Naeem et al. 2020); next to it the same of '
        f'{found.count} training samples. Compared are {features}, in up to 16 principal components.'
    )
    sides = (found.synthetic, found.training)
    rows = [('all classes', *(_percent(side['coverage']) for side in sides))]
    rows += [(name, *(_percent(side['by_class'][name]) for side in sides)) for name in spec.classes]
    section.tables.append(Table(('class', 'synthetic', 'training'), rows))
    return section


def _percent(share: float | None) -> str:
    return '–' if share is None else f'{100 * share:.0f} %'
