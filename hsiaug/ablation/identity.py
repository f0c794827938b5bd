"""The identity of a study, field by field: whether a run folder belongs to it."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..records import read_json
from .plan import Study, arm_identity, classifier_identity, splitter_identity
from .results import PLAN_FILE


def study_identity(study: Study) -> dict[str, Any]:
    """Everything that the results of a study depend on, by name, JSON-ready.

    Title, workers, ratios and seeds are not part of it: a study may be extended by more ratios and seeds.
    """
    return {
        'kind': study.kind,
        'scenes': {name: study.scene_content(name) for name in sorted({s.scene for s in study.settings})},
        'settings': {f'{s.scene}, {s.budget}': splitter_identity(s) for s in study.settings},
        'classifiers': {c.name: classifier_identity(c) for c in study.classifiers},
        'arms': {a.name: arm_identity(a) for a in study.arms},
    }


def require_same_study(study: Study, folder: Path, results: int) -> None:
    """Refuse a run folder of another study: common entries must agree, others extend the study."""
    require_same(folder, results, 'study', 'config', lambda found: _differences_of_common(found, study_identity(study)))


def require_same(
    folder: Path, results: int, what: str, given: str, differing: Callable[[Mapping[str, Any]], Iterable[str]]
) -> None:
    """Refuse a run folder with results of another study or experiment, naming what differs from its plan."""
    file = folder / PLAN_FILE
    if not file.is_file():
        raise ValueError(
            f'{folder} holds {results} results but no {PLAN_FILE} that says of which {what}; choose another'
        )
    found = read_json(file, f'the plan of a run of a {what}').get('identity')
    if not isinstance(found, dict):
        raise ValueError(
            f'{folder} holds {results} results of another {what}, or of this one by an older version, which did not '
            f'note in {PLAN_FILE} what its scenes hold, so that they cannot be compared; choose another folder. hsiaug '
            'report still draws a study'
        )
    if other := list(differing(found)):
        raise ValueError(
            f'{folder} holds {results} results of another {what}, which differs in\n  '
            + '\n  '.join(other[:8])
            + f'\nChoose another folder, or the {given} that it was started with'
        )


def _differences_of_common(found: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    if found.get('kind') != mine['kind']:
        return [f'kind of samples: there {found.get("kind")!r}, here {mine["kind"]!r}']
    other = []
    for what in ('scenes', 'settings', 'classifiers', 'arms'):
        there = found.get(what)
        there = there if isinstance(there, dict) else {}
        for name in mine[what].keys() & there.keys():
            other += [f'{what[:-1]} {name!r}, {line}' for line in differences(there[name], mine[what][name])]
    return sorted(other)


def differences(there: Any, here: Any, prefix: str = '') -> Iterator[str]:
    """Descriptions of the fields in which two JSON-ready values differ."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in sorted({*there, *here}, key=str):
            yield from differences(there.get(key), here.get(key), f'{prefix}.{key}' if prefix else str(key))
    elif there != here:
        yield f'{prefix or "value"}: there {reprlib.repr(there)}, here {reprlib.repr(here)}'
