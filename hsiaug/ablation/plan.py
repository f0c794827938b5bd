"""The plan of a study: settings, arms, ratios, seeds and classifiers, and the resulting cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from ..datasets import LabelPolicy, SampleSplitter
from ..datasets.own.parts import AnyScene
from ..ratio import require_ratio
from ..records import json_ready, short_digest
from ..samples import Kind
from ..scenes import Splitter
from ..scenes.patches import PatchSplitter
from ..settings import NOT_NEGATIVE, SHARE, check_value
from ..tasks import Classifier, Task, task_of, task_of_split
from ..tasks.downstream import D, Downstream
from .results import file_stem

REAL = 'real'
"""Name of the arm without synthetic samples."""


@dataclass(frozen=True)
class Arm:
    """One way of making synthetic samples.

    Args:
        name: name shown in tables.
        generator: registered name of the generator.
        settings: settings of the generator, see :func:`hsiaug.systems.fit.fit_generator`.
        labels: classes of the synthetic samples.
        ratios: ratios of this arm; by default, those of the study.
        seeds: number of seeds of this arm, if it is costly; by default, that of the study.
        control: whether the arm is a control, shown with the others but not tested in the primary family.
        default: ratio of the arm in the primary family, because it helped elsewhere; if None, the ratio is chosen on
            validation data.
        synthetic_only: train on synthetic samples only. Images with masks are a fixed set whose size the ratio sets;
            other samples are redrawn in each epoch, and the ratio has no effect.
        synthetic_first: share of the training on synthetic samples only, before it continues with real ones only;
            0 mixes both throughout.
        training: fields of the downstream models' ``config`` that differ in this arm, such as ``synthetic_weight``
            or ``auxiliary_bn``.
        live: redraw images with masks in each epoch, like spectra, instead of once.

    Raises:
        ValueError: if the name is that of the real-only arm, a ratio is invalid or repeated, or a number is out of its
            range.
    """

    name: str
    generator: str
    settings: dict[str, Any] = field(default_factory=dict)
    labels: LabelPolicy = 'uniform'
    ratios: tuple[float, ...] | None = None
    seeds: int | None = None
    control: bool = False
    default: float | None = None
    synthetic_only: bool = False
    synthetic_first: float = 0.0
    training: dict[str, Any] = field(default_factory=dict)
    live: bool = False

    def __post_init__(self) -> None:
        if self.name == REAL:
            raise ValueError(f'arm {self.name!r}: this name is reserved for the arm without synthetic samples')
        require_name(self.name, 'arm')
        for what, hint in (('labels', LabelPolicy), ('settings', dict[str, Any]), ('training', dict[str, Any])):
            check_value(f'arm {self.name!r}', what, getattr(self, what), hint)
        if self.ratios is not None:
            object.__setattr__(self, 'ratios', require_ratios(self.ratios, f'arm {self.name!r}'))
        if self.seeds is not None:
            check_value(f'arm {self.name!r}', 'number of seeds', self.seeds, int)
        check_value(f'arm {self.name!r}', 'synthetic_first', self.synthetic_first, float, SHARE)
        if self.synthetic_first and self.synthetic_only:
            raise ValueError(
                f'arm {self.name!r}: synthetic_first must be 0 with synthetic_only, found {self.synthetic_first!r}'
            )

    def adapt(self, downstream: D) -> D:
        """The downstream model with the changes of this arm's ``training``.

        Raises:
            ValueError: if the model has no such settings.
        """
        if not self.training and not self.synthetic_first:
            return downstream
        config: Any = getattr(downstream, 'config', None)
        if downstream.name == 'linear_svm':
            raise ValueError(
                f"arm {self.name!r}: 'linear_svm' has no training in steps that training and synthetic_first could "
                'change; give such arms a study with networks'
            )
        if 'steps' in self.training:
            raise ValueError(f'arm {self.name!r}: all arms train for equally many steps; leave them out of training')
        fields = {f.name for f in dataclasses.fields(config)}
        if unknown := set(self.training) - fields:
            raise ValueError(
                f'arm {self.name!r}: training names {sorted(unknown)}, but the {type(config).__name__} of '
                f'{downstream.name!r} has no such fields; choose from {sorted(fields)}'
            )
        return replace(downstream, config=replace(config, **self.training))  # type: ignore[call-arg]


@dataclass(frozen=True)
class Setting:
    """One scene under one split and label budget.

    Args:
        scene: name of the scene in the study.
        budget: name of the split and label budget, shown in tables.
        splitter: makes the split of each seed; for samples of datasets, a :class:`~hsiaug.datasets.SampleSplitter`.
        arm_seeds: numbers of seeds of some arms in this setting, by arm name; by default, the arm's own.
    """

    scene: str
    budget: str
    splitter: Splitter | PatchSplitter | SampleSplitter
    arm_seeds: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_name(self.scene, 'scene')
        require_name(self.budget, f'budget of scene {self.scene!r}')
        for arm, seeds in self.arm_seeds.items():
            check_value(f'{self.scene}, {self.budget}', f'number of seeds of arm {arm!r}', seeds, int, NOT_NEGATIVE)


@dataclass(frozen=True)
class Cell:
    """One training: the smallest unit that is run, recorded and resumed."""

    key: str
    setting: Setting
    seed: int
    classifier: Downstream
    arm: Arm | None
    ratio: float

    def __str__(self) -> str:
        """The cell in words."""
        way = 'real only' if self.arm is None else f'arm {self.arm.name!r} at ratio {self.ratio:g}'
        return f'{self.setting.scene}, {self.setting.budget}, {self.classifier.name}, {way}, seed {self.seed}'


@dataclass(frozen=True)
class Study:
    """A study.

    Args:
        title: title of the report.
        scenes: functions that open each scene, by name, called in the worker processes; or a
            :class:`~hsiaug.datasets.SampleSet` of datasets.
        settings: scenes with splits and label budgets.
        arms: ways of making synthetic samples; the real-only arm is always added.
        ratios: synthetic samples per real sample.
        seeds: seeds of split, generator and classifier together.
        classifiers: downstream models, all for the same kind of samples: classifiers of spectra, segmentation networks,
            ...
        quick: mark the study as no basis for claims.
        fidelity_seeds: number of seeds for which the fidelity of each arm's samples is measured.
        inception: weights of Inception v3, whose features are used to compare images with masks; by default, a network
            trained on the classes of the training part is used.

    Raises:
        ValueError: if names, seeds or ratios repeat, names would share a file, a number is out of its range, or
            something is empty.
    """

    title: str
    scenes: Mapping[str, Callable[[], AnyScene]]
    settings: tuple[Setting, ...]
    arms: tuple[Arm, ...]
    ratios: tuple[float, ...] = (0.25, 0.5, 1, 2, 5)
    seeds: tuple[int, ...] = tuple(range(20))
    classifiers: tuple[Downstream, ...] = (Classifier(),)
    quick: bool = False
    fidelity_seeds: int = 1
    inception: Path | None = None

    def __post_init__(self) -> None:
        who = f'study {self.title!r}'
        for what in ('settings', 'arms', 'ratios', 'seeds', 'classifiers'):
            object.__setattr__(self, what, _listed(getattr(self, what), f'{who}: {what}'))
            if not getattr(self, what) and what != 'arms':
                raise ValueError(f'{who}: at least one of {what} is needed')
        object.__setattr__(self, 'ratios', require_ratios(self.ratios, who))
        seeds = tuple(check_value(who, 'seed', seed, int, NOT_NEGATIVE) for seed in self.seeds)
        object.__setattr__(self, 'seeds', seeds)
        check_value(who, 'fidelity_seeds', self.fidelity_seeds, int, NOT_NEGATIVE)
        for what, names in (
            ('arms', [a.name for a in self.arms]),
            ('settings', [(s.scene, s.budget) for s in self.settings]),
            ('classifiers', [c.name for c in self.classifiers]),
            ('seeds', list(self.seeds)),
        ):
            if repeated := {str(n) for n in names if names.count(n) > 1}:  # type: ignore[arg-type, attr-defined]
                raise ValueError(f'{who}: repeated {what} {sorted(repeated)}; each must be different')
        for arm in self.arms:
            if not any(ratios := arm.ratios or self.ratios):
                raise ValueError(f'{who}: arm {arm.name!r} has no ratio above 0; leave it out, or give it one')
            if arm.default is not None and arm.default not in ratios:
                raise ValueError(f'{who}: arm {arm.name!r}: default {arm.default!r} is not among its ratios {ratios}')
        if unknown := {s.scene for s in self.settings} - set(self.scenes):
            raise ValueError(f'{who}: settings name unknown scenes {sorted(unknown)}')
        if len(kinds := {c.kind for c in self.classifiers}) > 1:
            raise ValueError(
                f'{who}: downstream models of samples of kind {sorted(kinds)} cannot be in one study; make one for '
                'each kind'
            )
        for arm, classifier in product(self.arms, self.classifiers):
            arm.adapt(classifier)
        for all_named in (self.arms, self.classifiers):  # budgets "a b" and "a_b" would share a file
            stems: dict[str, tuple[str, str, str]] = {}
            for setting, one in product(self.settings, all_named):
                own = (setting.scene, setting.budget, one.name)  # type: ignore[attr-defined]
                if (other := stems.setdefault(file_stem(*own), own)) != own:
                    raise ValueError(f'{who}: {other} and {own} would share files; name one differently')
        for setting in self.settings:
            if isinstance(setting.splitter, SampleSplitter):  # their kind is known once they are opened
                continue
            if task_of_split(setting.splitter, self.task.dates) is not self.task:
                raise ValueError(
                    f'{who}: {type(self.classifiers[0]).__name__} {self.classifiers[0].name!r} and '
                    f'{type(setting.splitter).__name__} of setting {setting.budget!r} cannot be in one study; samples '
                    f'of kind {self.kind!r} are split by a {self.task.splits[1].__name__}'
                )

    @property
    def kind(self) -> Kind:
        """Kind of the samples."""
        return self.classifiers[0].kind

    @property
    def task(self) -> Task:
        """The task of that kind."""
        return task_of(self.kind)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Test metrics, the primary one first."""
        return self.task.metrics

    def groups(self) -> Iterator[tuple[Setting, int]]:
        """Pairs of setting and seed; the cells of a group share a split.

        Seeds are the outermost loop, so that a study stopped early has complete seeds.
        """
        for seed in self.seeds:
            for setting in self.settings:
                yield setting, seed

    def cells(self, setting: Setting, seed: int) -> list[Cell]:
        """The cells of one group: real only first, then each arm at each ratio."""
        cells = []
        for classifier in self.classifiers:
            cells.append(self._cell(setting, seed, classifier, None, 0.0))
            for arm in self.arms:
                limit = setting.arm_seeds.get(arm.name, arm.seeds)
                if limit is not None and self.seeds.index(seed) >= limit:
                    continue
                for ratio in arm.ratios or self.ratios:
                    if ratio > 0:
                        cells.append(self._cell(setting, seed, classifier, arm, float(ratio)))
        return cells

    def _cell(self, setting: Setting, seed: int, classifier: Downstream, arm: Arm | None, ratio: float) -> Cell:
        made: list[Any] | None = None
        if arm is not None:  # and any options of mixing that differ from the defaults
            ways = {'synthetic_first': arm.synthetic_first, 'training': arm.training, 'live': arm.live}
            used = {name: value for name, value in ways.items() if value}
            made = [arm.name, arm.generator, arm.settings, arm.labels, *(['only'] if arm.synthetic_only else [])]
            made += [used] if used else []
        identity = {
            'setting': [setting.scene, setting.budget, splitter_identity(setting)],
            'classifier': _decisive(dataclasses.asdict(classifier)),
            'arm': made,
            'ratio': ratio,
            'seed': seed,
        }
        key = short_digest(identity)
        if content := self.scene_content(setting.scene):
            key = short_digest([key, content, type(classifier).__name__, type(arm).__name__])
        return Cell(key, setting, seed, classifier, arm, ratio)

    def scene_content(self, name: str) -> dict[str, Any]:
        """Content of a scene (:attr:`~hsiaug.scenes.Scene.content`), which is opened once, for the first cell.

        Cells are identified by the content of their scene, not only by its name: the file may change.
        """
        known: dict[str, dict[str, Any]] = self.__dict__.setdefault('_contents', {})
        if name not in known:
            scene = self.scenes[name]()
            # Listing cells needs no scenes.
            known[name] = scene.content if isinstance(scene, AnyScene) else {}
        return known[name]

    def all_cells(self) -> list[Cell]:
        """Every cell, in the order in which they run."""
        return [cell for setting, seed in self.groups() for cell in self.cells(setting, seed)]


def _decisive(classifier: dict[str, Any]) -> dict[str, Any]:
    """Fields of a downstream model, without empty ones that older plans do not have."""
    found = {name: value for name, value in classifier.items() if name != 'widths' or value}
    config = found.get('config')
    if isinstance(config, dict) and not config.get('keep_best'):
        found['config'] = {name: value for name, value in config.items() if name != 'keep_best'}
    return found


def splitter_identity(setting: Setting) -> dict[str, Any]:
    """Everything in a setting's splitter that results depend on, JSON-ready."""
    found = json_ready(dataclasses.asdict(setting.splitter))
    if not found.get('max_unlabelled'):  # older plans do not have it
        found.pop('max_unlabelled', None)
    return {'type': type(setting.splitter).__name__, **found}


def classifier_identity(classifier: Downstream) -> dict[str, Any]:
    """Everything in a downstream model that results depend on, JSON-ready."""
    return {'type': type(classifier).__name__, **_decisive(json_ready(classifier))}


def arm_identity(arm: Arm) -> dict[str, Any]:
    """Everything in an arm that results depend on, JSON-ready: not its name, ratios and numbers of seeds."""
    left_out = {'name', 'control', 'default', 'ratios', 'seeds'}
    if not arm.live:  # older plans do not have it
        left_out.add('live')
    return {'type': type(arm).__name__, **{k: v for k, v in json_ready(arm).items() if k not in left_out}}


def _listed(values: Any, what: str) -> tuple[Any, ...]:
    """Several values as a tuple; a single one is a mistake."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f'{what} must be a list, found {values!r}')
    return tuple(values)


def require_name(name: Any, what: str) -> None:
    """Check a name."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f'{what}: a name expected, found {name!r}')


def require_ratios(ratios: Any, who: str) -> tuple[float, ...]:
    """Ratios as floats; at least one, without repetition."""
    found = tuple(require_ratio(ratio, f'{who}: ratio') for ratio in _listed(ratios, f'{who}: ratios'))
    if not found or len(set(found)) < len(found):
        raise ValueError(f'{who}: at least one ratio, and none twice, expected, found {found}')
    return found
