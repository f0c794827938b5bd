"""Fidelity in words and tables: of a generator, and of a study as the cells of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..metrics import ChangeFidelity, Fidelity, PatchFidelity
from ..metrics.masks import class_shares
from ..metrics.values import DIFFERENCES, OF_BOTH, OF_DATE, TITLES
from ..samples import SampleSpec
from .html import Part, Table


def spectra_parts(result: Fidelity, spec: SampleSpec) -> list[Part]:
    """A fidelity of spectra."""
    measures = [
        ('spectral angle between class means (mSAD, radians)', f'{result.msad:.4f}', '0'),
        ('standard deviation, synthetic / real', f'{result.std_ratio:.2f}', '1'),
        ('band-to-band roughness, synthetic / real', f'{result.roughness_ratio:.2f}', '1'),
        ('synthetic closer to a real spectrum than its neighbour', f'{100 * result.closer_than_real:.1f} %', '50 %'),
    ]
    angles = list(zip(spec.classes, (f'{angle:.4f}' for angle in result.msad_per_class), strict=True))
    return [
        Table(('measure', 'value', 'ideal'), measures),
        'Linear SVM, accuracy in % (Audebert et al. 2018, Table 1):',
        Table([name.replace('_', '→') for name in result.svm], [[f'{100 * v:.1f}' for v in result.svm.values()]]),
        Table(('class', 'angle of the class means (radians)'), angles),
    ]


def patch_parts(result: PatchFidelity, spec: SampleSpec, masks: Mapping[str, Tensor]) -> list[Part]:
    """A fidelity of pairs, with the class shares of (n, H, W) masks by what they are."""
    shares = [(100 * class_shares(mask, spec.num_classes, spec.ignore_index)).tolist() for mask in masks.values()]
    angles = map(format_number, result.msad_per_class)
    rows = [
        (name, angle, *(f'{share:.1f}' for share in each))
        for name, angle, *each in zip(spec.classes, angles, *shares, strict=True)
    ]
    header = ('class', 'angle of the class means to test (radians)', *(f'% of {name}' for name in masks))
    return [fidelity_table(result, tuple(TITLES)), *fidelity_notes(result), Table(header, rows)]


def fidelity_table(result: PatchFidelity, fields: Sequence[str]) -> Table:
    """Some measures, of :data:`~hsiaug.metrics.values.TITLES`."""
    columns = [result, result.real_reference, result.against_train]
    rows = []
    for field in fields:
        name, ideal = TITLES[field]
        rows.append((name, *(format_number(getattr(side, field)) if side else '–' for side in columns), ideal))
    return Table(('measure', 'synthetic, test', 'real training, test', 'synthetic, real training', 'ideal'), rows)


def format_number(value: float) -> str:
    """A measure with its significant digits, or a dash for NaN."""
    return '–' if value != value else f'{value:.4f}' if abs(value) < 0.1 else f'{value:.2f}'


def fidelity_notes(result: PatchFidelity, what: str = 'pairs') -> list[str]:
    """How many samples the measures rest on, and how reliable that makes them; ``what`` names the samples."""
    image, mask = result.dimensions
    trained = result.against_train.real_count if result.against_train else 0
    notes = [
        f'{result.count} synthetic {what}, {trained} training and {result.real_count} test {what}. Distances of '
        f'features ({image} of an image, {mask} of a mask) take {result.compared} synthetic or training {what} each. '
        'The second column is the best that a generator can achieve, since the training part differs from the test '
        'part too.'
    ]
    if min(result.compared, result.real_count) <= max(image, mask):
        notes.append(
            f'There are no more {what} than features, so Fréchet distances are biased upwards. Only compare the '
            'first two columns with each other, or with other generators at the same numbers.'
        )
    return notes


def change_parts(result: ChangeFidelity, changed: Mapping[str, float]) -> list[Part]:
    """A fidelity of pairs of dates, with percentages of changed pixels by what the masks are."""
    differences = [
        (name, *(f'{getattr(side, field):.3f}' for side in (result.differences, result.real_differences)))
        for field, name in DIFFERENCES.items()
    ]
    return [
        'Date 1:', fidelity_table(result.first, OF_DATE),
        'Date 2:', fidelity_table(result.second, OF_DATE),
        'Both dates and the change mask:', fidelity_table(result.both, OF_BOTH),
        'Differences between the dates:',
        Table(('measure', 'synthetic, test', 'real training, test'), differences),
        *fidelity_notes(result.both),
        'Changed pixels: ' + ', '.join(f'{share:.1f} % ({name})' for name, share in changed.items()) + '.',
    ]  # fmt: skip


# --- of a study, by the kind of its samples ---------------------------------------------------------------------------

Columns = Mapping[str, tuple[str, int]]
"""Title of a column to the dotted path of its figure in a record, and its digits."""

_PAIRS_NOTE = (
    'Compared with test pairs; in brackets, values of real training pairs, the best that can be achieved. FID: Fréchet '
    'distance of features of an encoder trained on the training part; to training pairs, as papers report it, and to '
    'test pairs. mSAD: spectral angle between class means, radians. Std ratio: within classes, synthetic over real. '
)
_RECONSTRUCTION: Columns = {
    'RMSE': ('reconstruction.rmse', 4), 'SAD': ('reconstruction.sad', 3),
    'mask': ('reconstruction.mask_accuracy', 3), 'CE': ('reconstruction.cross_entropy', 3),
}  # fmt: skip
_TABLES: dict[str, tuple[str, Columns]] = {
    'spectrum': (
        'mSAD: spectral angle between class means, radians. Std ratio and roughness: synthetic over real, 1 is ideal. '
        'SVM: accuracy, trained → tested. Closer: share of samples closer to a real spectrum than its own neighbour.',
        {
            'mSAD': ('msad', 4), 'std ratio': ('std_ratio', 2), 'roughness': ('roughness_ratio', 2),
            'real→real': ('svm.real_real', 3), 'real→fake': ('svm.real_fake', 3),
            'fake→fake': ('svm.fake_fake', 3), 'fake→real': ('svm.fake_real', 3),
            'closer': ('authenticity_share_closer', 2),
        },
    ),
    'segmentation': (
        _PAIRS_NOTE + 'Classes: total variation distance of the class shares. Alignment: recall of a pixel classifier '
        'on the synthetic masks divided by its recall on real ones, 1 if mask and image match. RMSE, SAD, mask and CE '
        '(cross entropy of masks): test pairs reconstructed by the autoencoders.',
        {
            'pairs': ('compared', 0), 'FID to training': ('against_train.fid_image', 2),
            'FID': ('fid_image', 2), 'FID of masks to training': ('against_train.fid_mask', 2),
            'FID of masks': ('fid_mask', 2), 'mSAD': ('msad', 3), 'std ratio': ('std_ratio', 2),
            'precision': ('precision', 2),
            'recall': ('recall', 2), 'coverage': ('coverage', 2), 'classes': ('class_share_error', 3),
            'alignment': ('alignment', 2), **_RECONSTRUCTION,
        },
    ),
    'change': (
        _PAIRS_NOTE + 'Dates are compared one by one, and both together with the features of both, which shows dates '
        'that do not belong together. Differences: Wasserstein distance of second minus first date, in standard '
        'deviations of real differences, where nothing changed and where something did; textures: the same for its '
        'steps between neighbouring pixels. Share: difference in the share of changed pixels. Alignment: recall of a '
        'pixel classifier of both dates on the synthetic change masks, divided by its recall on real ones. '
        'RMSE, SAD, mask and CE (cross entropy of masks): test pairs reconstructed by the autoencoders.',
        {
            'pairs': ('both.compared', 0), 'FID date 1 to training': ('first.against_train.fid_image', 2),
            'FID date 1': ('first.fid_image', 2),
            'FID date 2 to training': ('second.against_train.fid_image', 2),
            'FID date 2': ('second.fid_image', 2), 'FID both dates': ('both.fid_image', 2),
            'FID of masks to training': ('both.against_train.fid_mask', 2),
            'FID of masks': ('both.fid_mask', 2), 'mSAD date 1': ('first.msad', 3),
            'mSAD date 2': ('second.msad', 3), 'std ratio date 1': ('first.std_ratio', 2),
            'std ratio date 2': ('second.std_ratio', 2),
            'differences, unchanged': ('differences.unchanged', 2),
            'differences, changed': ('differences.changed', 2),
            'texture, unchanged': ('differences.unchanged_texture', 2),
            'texture, changed': ('differences.changed_texture', 2), 'share': ('both.class_share_error', 3),
            'alignment': ('both.alignment', 2), **_RECONSTRUCTION,
        },
    ),
}  # fmt: skip


def study_fidelity(records: Sequence[dict[str, Any]]) -> tuple[str, list[str], list[list[str]]]:
    """The note, the header and the rows of the fidelity table of a study, of means over seeds."""
    note, columns = _TABLES[records[0].get('kind', 'spectrum') if records else 'spectrum']
    arms: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in map(_flat, records):
        arms.setdefault((record['scene'], record['budget'], record['arm']), []).append(record)
    rows = [
        [*key, str(len(of_arm)), *(_figure(of_arm, path, digits) for path, digits in columns.values())]
        for key, of_arm in arms.items()
    ]
    return note, ['scene', 'budget', 'arm', 'seeds', *columns], rows


def _flat(record: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """What is in nested records, by dotted paths."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= _flat(value, f'{prefix}{name}.') if isinstance(value, Mapping) else {prefix + name: value}
    return found


def _figure(records: Sequence[dict[str, Any]], path: str, digits: int) -> str:
    """Mean over seeds of one figure and, in brackets, the same of real training pairs where it is known."""
    *above, name = path.split('.')
    means = []
    for key in (path, '.'.join([*above, 'real_reference', name])):
        values = [float(record[key]) for record in records if record.get(key) is not None]
        means.append(f'{sum(values) / len(values):.{digits}f}' if values else None)
    shown, reference = means
    return (shown or '–') if reference is None else f'{shown or "–"} ({reference})'
