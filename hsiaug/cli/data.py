"""Datasets in the place of a scene: which classes, and when they may be imported.

A class is imported where the command itself, or the config file that it is given, names it. What a folder names, which
may come from anybody, is shown and imported only by a user who says ``--trust_run``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..named_configs import near

if TYPE_CHECKING:
    from ..datasets import SampleSet, SampleSplit, SampleSplitter

CLASSES = ('data', 'val', 'test', 'unlabelled')
"""Options that name a class."""


@dataclass(frozen=True)
class DataConfig:
    """Datasets instead of a scene.

    Args:
        data: dataset to learn from instead of a scene: class_path of a torch Dataset and its arguments, such as
            --data.class_path torchgeo.datasets.OSCD --data.init_args.root data/oscd, or hsiaug.datasets.PairFolder.
        val: dataset for validation; if null, a share of data.
        test: dataset for testing; if null, a share of data.
        unlabelled: dataset of unlabelled images of the training area, for generators that can learn from them.
        size: side, or height and width, of the tiles that images are cut into; required if image sizes differ.
        classes: class names in label order, if the dataset has none.
        wavelengths: band centres in nm, if the samples have none.
        unit: physical unit.
        ignore_index: label of pixels to ignore.
        value_range: lowest and highest value allowed by the unit.
        group: key of the samples, or attribute of the dataset with one value per sample; samples with the same value
            stay in the same part. If null, tiles of the same image do; 'samples' keeps nothing together.
        val_share: share of data for validation if val is null; 0.2 if null.
        test_share: share of data for testing if test is null; 0.2 if null.
    """

    data: dict[str, Any] | None = None
    val: dict[str, Any] | None = None
    test: dict[str, Any] | None = None
    unlabelled: dict[str, Any] | None = None
    size: int | tuple[int, int] | None = None
    classes: tuple[str, ...] | None = None
    wavelengths: tuple[float, ...] | None = None
    unit: str | None = None
    ignore_index: int | None = None
    value_range: tuple[float, float] | None = None
    group: str | None = None
    val_share: float | None = None
    test_share: float | None = None

    def stated(self) -> dict[str, Any]:
        """Fields that are not null, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(DataConfig)}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def name(self) -> str:
        """That of the class to learn from."""
        return str((self.data or {}).get('class_path', 'data')).rpartition('.')[2]

    def splitter(self) -> SampleSplitter:
        """What draws the parts that are not given."""
        from ..datasets import SampleSplitter

        given = {'val_share': self.val_share, 'test_share': self.test_share}
        return SampleSplitter(**{name: share for name, share in given.items() if share is not None})

    def __call__(self, progress: bool = False) -> SampleSet:
        """Import the classes, and open the datasets."""
        from ..datasets import SampleSet

        opened = {name: open_dataset(name, given) for name in CLASSES if (given := getattr(self, name)) is not None}
        others = (*CLASSES, 'group', 'val_share', 'test_share')
        about = {name: value for name, value in self.stated().items() if name not in others}
        return SampleSet(opened.pop('data'), **opened, group=self.group, name=self.name, progress=progress, **about)

    def parts(self, seed: int) -> tuple[SampleSet, SampleSplit]:
        """The samples and their parts."""
        splitter, samples = self.splitter(), self(progress=True)
        return samples, splitter(samples, seed)


def given_data(config: DataConfig, scene: bool = False) -> DataConfig | None:
    """What options say of datasets, where they do not name a ``scene`` as well; None if they say nothing."""
    if not (stated := config.stated()):
        return None
    if config.data is None:
        raise ValueError(f'{", ".join(stated)}: these go with a dataset; name one with --data.class_path')
    if scene:
        raise ValueError('give a scene and its split, or data, not both')
    return config


def noted_data(noted: DataConfig, given: DataConfig, trust: bool, file: Path) -> DataConfig | None:
    """The datasets that a run was trained on; None if that was a scene.

    What the command says comes before what the run's note, a ``file``, says. A class that only the note names is
    imported where the user wants to ``trust`` it.
    """
    stated = given.stated()
    if noted.data is None:
        if stated:
            raise ValueError(f'{file} says that a scene was trained on; {", ".join(stated)} are for runs on datasets')
        return None
    named = [name for name in CLASSES if getattr(noted, name) is not None and name not in stated]
    if named and not trust:
        calls = []
        for name in named:
            path, arguments = _named(getattr(noted, name))
            calls.append(f'{name}: ' + f'{path}({", ".join(f"{n}={v!r}" for n, v in arguments.items())})'[:300])
        raise ValueError(
            f'{file} names classes to import ({", ".join(calls)}). A folder may come from anybody, so this is done '
            f'only on request: add --trust_run, or name {" and ".join(named)} yourself with --{named[0]}.class_path'
        )
    return DataConfig(**{**noted.stated(), **stated})


def _named(given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Class path and arguments; the latter may stand next to the former, as single options give them."""
    inner = given.get('init_args')
    others = {name: value for name, value in given.items() if name not in ('class_path', 'init_args')}
    return given.get('class_path'), {**(inner if isinstance(inner, dict) else {}), **others}


def open_dataset(option: str, given: dict[str, Any]) -> Any:
    """Import a dataset's class, and make one, of the ``class_path`` and ``init_args`` that an option gives."""
    from jsonargparse import ArgumentError, ArgumentParser
    from torch.utils.data import Dataset

    path, arguments = _named(given)
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split('.')) or '.' not in path:
        raise ValueError(
            f'--{option}.class_path: a class with its module expected, such as torchgeo.datasets.OSCD, found {path!r}'
        )
    who, (module, _, title) = f'--{option}.class_path: {path}', path.rpartition('.')
    try:
        imported = importlib.import_module(module)
        cls = getattr(imported, title, None)
    except Exception as error:  # whatever a user's own module raises
        raise ValueError(f'{who} cannot be imported: {type(error).__name__}: {error}') from error
    if cls is None:
        hint = near(title, dir(imported))
        raise ValueError(f'{who} cannot be imported; {hint}{module} has no {title}')
    if not (isinstance(cls, type) and issubclass(cls, Dataset)):
        raise ValueError(f'{who} is not a torch.utils.data.Dataset')
    parser = ArgumentParser(exit_on_error=False)
    known = [name.split('.')[1] for name in parser.add_class_arguments(cls, option, fail_untyped=False)]
    for name in arguments:
        if name not in known:
            raise ValueError(f'--{option}: {path} does not take {name!r}; {near(name, known)}choose from {known}')
    try:
        parsed = parser.parse_object({option: arguments})
    except (ArgumentError, TypeError) as error:
        raise ValueError(f'--{option}: {path} cannot be made with {arguments}: {error}') from error
    try:
        return parser.instantiate(parsed)[option]
    except Exception as error:  # whatever a dataset raises
        raise ValueError(f'--{option}: {title} cannot be opened: {type(error).__name__}: {error}') from error
