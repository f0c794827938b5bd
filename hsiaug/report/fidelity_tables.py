"""The fidelity table of a study, by the kind of its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Path = tuple[str, ...]
Columns = Mapping[str, tuple[Path, int]]
"""Title of a column to the path of its figure in a record, and its digits."""

_PAIRS_NOTE = (
    'Against test pairs; in brackets what real training pairs reach, the best to hope for. FID: Fréchet distance of '
    'the features of an encoder trained on the training part; to training pairs, as papers report it, and to test '
    'pairs. mSAD: spectral angle between class means, radians. Std ratio: within classes, synthetic over real. '
)
_RECONSTRUCTION: Columns = {
    'RMSE': (('reconstruction', 'rmse'), 4),
    'SAD': (('reconstruction', 'sad'), 3),
    'mask': (('reconstruction', 'mask_accuracy'), 3),
}
_TABLES: dict[str, tuple[str, Columns]] = {
    'spectrum': (
        'mSAD: spectral angle between class means, radians. Std ratio and roughness: synthetic over real, 1 is ideal. '
        'SVM: accuracy, trained → tested. Closer: share of samples nearer to a real spectrum than its own neighbour.',
        {
            'mSAD': (('msad',), 4),
            'std ratio': (('std_ratio',), 2),
            'roughness': (('roughness_ratio',), 2),
            'real→real': (('svm', 'real_real'), 3),
            'real→fake': (('svm', 'real_fake'), 3),
            'fake→fake': (('svm', 'fake_fake'), 3),
            'fake→real': (('svm', 'fake_real'), 3),
            'closer': (('authenticity_share_closer',), 2),
        },
    ),
    'segmentation': (
        _PAIRS_NOTE + 'Classes: total variation distance of the class shares. Alignment: recall of a pixel classifier '
        'on the synthetic masks in units of its recall on real ones, 1 where mask and image go together. RMSE, SAD '
        'and mask: test pairs through the autoencoders and back.',
        {
            'pairs': (('compared',), 0),
            'FID to training': (('against_train', 'fid_image'), 2),
            'FID': (('fid_image',), 2),
            'FID of masks to training': (('against_train', 'fid_mask'), 2),
            'FID of masks': (('fid_mask',), 2),
            'mSAD': (('msad',), 3),
            'std ratio': (('std_ratio',), 2),
            'precision': (('precision',), 2),
            'recall': (('recall',), 2),
            'coverage': (('coverage',), 2),
            'classes': (('class_share_error',), 3),
            'alignment': (('alignment',), 2),
            **_RECONSTRUCTION,
        },
    ),
    'change': (
        _PAIRS_NOTE + 'Dates are compared each for itself, and both together with the features of both: there dates '
        'that do not belong together show. Differences: Wasserstein distance of second less first date, in standard '
        'deviations of real differences, where nothing changed and where something did; textures are those of its '
        'steps from a pixel to the next. Share: difference in the share of changed pixels. Alignment: recall of a '
        'pixel classifier, which sees both dates, on the synthetic change masks in units of its recall on real ones. '
        'RMSE, SAD and mask: test pairs through the autoencoders and back.',
        {
            'pairs': (('both', 'compared'), 0),
            'FID date 1 to training': (('first', 'against_train', 'fid_image'), 2),
            'FID date 1': (('first', 'fid_image'), 2),
            'FID date 2 to training': (('second', 'against_train', 'fid_image'), 2),
            'FID date 2': (('second', 'fid_image'), 2),
            'FID both dates': (('both', 'fid_image'), 2),
            'FID of masks to training': (('both', 'against_train', 'fid_mask'), 2),
            'FID of masks': (('both', 'fid_mask'), 2),
            'mSAD date 1': (('first', 'msad'), 3),
            'mSAD date 2': (('second', 'msad'), 3),
            'std ratio date 1': (('first', 'std_ratio'), 2),
            'std ratio date 2': (('second', 'std_ratio'), 2),
            'differences, unchanged': (('differences', 'unchanged'), 2),
            'differences, changed': (('differences', 'changed'), 2),
            'texture, unchanged': (('differences', 'unchanged_texture'), 2),
            'texture, changed': (('differences', 'changed_texture'), 2),
            'share': (('both', 'class_share_error'), 3),
            'alignment': (('both', 'alignment'), 2),
            **_RECONSTRUCTION,
        },
    ),
}


def fidelity_table(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The note, the header and the rows of the fidelity table of a study, of means over seeds."""
    note, columns = _TABLES[records[0].get('kind', 'spectrum') if records else 'spectrum']
    arms: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in records:
        arms.setdefault((record['scene'], record['budget'], record['arm']), []).append(record)
    rows = [
        [*key, str(len(of_arm)), *(_figure(of_arm, path, digits) for path, digits in columns.values())]
        for key, of_arm in arms.items()
    ]
    return {'note': note, 'header': ['scene', 'budget', 'arm', 'seeds', *columns], 'rows': rows}


def _figure(records: Sequence[dict[str, Any]], path: Path, digits: int) -> str:
    """Mean over seeds of one figure and, in brackets, the same of real training pairs where it is known."""
    shown = f'{mean:.{digits}f}' if (mean := _mean(records, path)) is not None else '–'
    reference = _mean(records, (*path[:-1], 'real_reference', path[-1]))
    return shown if reference is None else f'{shown} ({reference:.{digits}f})'


def _mean(records: Sequence[dict[str, Any]], path: Path) -> float | None:
    values = []
    for record in records:
        value: Any = record
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            values.append(float(value))
    return sum(values) / len(values) if values else None
