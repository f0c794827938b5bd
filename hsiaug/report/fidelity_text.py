"""Fidelity in words and tables, for Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..metrics import ChangeFidelity, Fidelity, PatchFidelity
from ..metrics.masks import class_shares
from ..metrics.values import DIFFERENCES, OF_BOTH, OF_DATE, TITLES
from ..samples import SampleSpec


def fidelity_markdown(result: Fidelity, spec: SampleSpec) -> str:
    """A fidelity as Markdown tables."""
    svm = {name: f'{100 * value:.1f}' for name, value in result.svm.items()}
    lines = [
        '## Fidelity',
        '',
        '| measure | value | ideal |',
        '|---|---|---|',
        f'| spectral angle between class means (mSAD, radians) | {result.msad:.4f} | 0 |',
        f'| standard deviation, synthetic / real | {result.std_ratio:.2f} | 1 |',
        f'| band-to-band roughness, synthetic / real | {result.roughness_ratio:.2f} | 1 |',
        f'| synthetic nearer to a real spectrum than its neighbour | {100 * result.closer_than_real:.1f} % | 50 % |',
        '',
        'Linear SVM, accuracy in % (Audebert et al. 2018, Table 1):',
        '',
        '| ' + ' | '.join(name.replace('_', '→') for name in svm) + ' |',
        '|' + '---|' * len(svm),
        '| ' + ' | '.join(svm.values()) + ' |',
        '',
        '| class | angle of the class means (radians) |',
        '|---|---|',
        *(f'| {_cell(name)} | {angle:.4f} |' for name, angle in zip(spec.classes, result.msad_per_class, strict=True)),
    ]
    return '\n'.join(lines) + '\n'


def patch_markdown(result: PatchFidelity, spec: SampleSpec, masks: Mapping[str, Tensor]) -> str:
    """A fidelity of pairs as Markdown tables, with the class shares of (n, H, W) masks by what they are."""
    lines = ['## Fidelity', '', *fidelity_table(result, tuple(TITLES))]
    lines += ['', *fidelity_notes(result), '', *_class_table(result, spec, masks)]
    return '\n'.join(lines) + '\n'


def fidelity_table(result: PatchFidelity, fields: Sequence[str]) -> list[str]:
    """Lines of a Markdown table of some measures, of :data:`~hsiaug.metrics.values.TITLES`."""
    columns = [result, result.real_reference, result.against_train]
    lines = [
        '| measure | synthetic, test | real training, test | synthetic, real training | ideal |',
        '|---|---|---|---|---|',
    ]
    for field in fields:
        name, ideal = TITLES[field]
        values = ['–' if side is None else format_number(getattr(side, field)) for side in columns]
        lines.append(f'| {name} | {" | ".join(values)} | {ideal} |')
    return lines


def format_number(value: float) -> str:
    """A measure with its significant digits, or a dash for NaN."""
    return '–' if value != value else f'{value:.4f}' if abs(value) < 0.1 else f'{value:.2f}'


def _cell(name: str) -> str:
    return name.replace('|', '\\|').replace('<', '&lt;')


def fidelity_notes(result: PatchFidelity, what: str = 'pairs') -> list[str]:
    """How many samples the measures rest on, and how reliable that makes them; ``what`` names the samples."""
    image, mask = result.dimensions
    trained = result.against_train.real_count if result.against_train else 0
    notes = [
        f'{result.count} synthetic {what}, {trained} training and {result.real_count} test {what}. Distances of '
        f'features ({image} of an image, {mask} of a mask) take {result.compared} synthetic or training {what} each. '
        'The second column is the best that a generator can hope for: the training part differs from the test part '
        'as well.'
    ]
    if min(result.compared, result.real_count) <= max(image, mask):
        notes += [
            '',
            f'There are no more {what} than features, so that Fréchet distances are biased upwards. The first two '
            'columns can be compared with each other, and with other generators at these numbers; alone they say '
            'nothing.',
        ]
    return notes


def _class_table(result: PatchFidelity, spec: SampleSpec, masks: Mapping[str, Tensor]) -> list[str]:
    shares = [100 * class_shares(mask, spec.num_classes, spec.ignore_index) for mask in masks.values()]
    lines = [
        f'| class | angle of the class means to test (radians) | {" | ".join(f"% of {name}" for name in masks)} |',
        '|---|---|' + '---|' * len(masks),
    ]
    for label, (name, angle) in enumerate(zip(spec.classes, result.msad_per_class, strict=True)):
        each = ' | '.join(f'{float(share[label]):.1f}' for share in shares)
        lines.append(f'| {_cell(name)} | {format_number(angle)} | {each} |')
    return lines


def change_markdown(result: ChangeFidelity, changed: Mapping[str, float]) -> str:
    """A fidelity of pairs of dates as Markdown tables, with percentages of changed pixels by what the masks are."""
    lines = ['## Fidelity', '']
    parts = (('Date 1', result.first, OF_DATE), ('Date 2', result.second, OF_DATE))
    for title, part, fields in (*parts, ('Both dates and the change mask', result.both, OF_BOTH)):
        lines += [f'### {title}', '', *fidelity_table(part, fields), '']
    lines += [
        '### Differences between the dates',
        '',
        '| measure | synthetic, test | real training, test |',
        '|---|---|---|',
    ]
    for field, name in DIFFERENCES.items():
        values = [f'{getattr(side, field):.3f}' for side in (result.differences, result.real_differences)]
        lines.append(f'| {name} | {" | ".join(values)} |')
    lines.append('')
    shares = ', '.join(f'{share:.1f} % ({name})' for name, share in changed.items())
    lines += [*fidelity_notes(result.both), '', f'Changed pixels: {shares}.']
    return '\n'.join(lines) + '\n'
