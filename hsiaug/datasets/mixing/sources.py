"""One or several named sources of synthetic samples, with the ratio of each."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...evidence import Recommendation, recommended_ratio
from ...ratio import Mode, Schedule, as_schedule, ratio_in, source_counts, together
from ...samples import Sample, SampleSpec, require_compatible
from ...settings import check_value
from ...streams import SOURCES, WHICH, stream_seed
from ..bank.reader import SyntheticBank
from ..pools.labels import LabelPolicy
from ..pools.pool import Draw, LivePool, Pool, Source
from ..pools.stored import StoredPool
from .checks import ClassNumbers, Scales, require_mixable

LOGGER = logging.getLogger(__name__)

NamedSources = Source | str | os.PathLike[str] | Mapping[str, Source | str | os.PathLike[str]]
"""A source or the folder of a bank, or several of these by name."""
Ratio = float | Schedule | Literal['auto']
Ratios = Ratio | Mapping[str, Ratio]
"""Synthetic samples per real sample: a number, a schedule over epochs, ``'auto'`` for what
:func:`~hsiaug.evidence.recommended_ratio` knows of the source or, of named sources, one of these for each name."""
LabelPolicies = LabelPolicy | None | Mapping[str, LabelPolicy | None]
"""A label policy of all sources or, of named ones, one for each name; weights by class name are one policy."""

RESERVED = ('image', 'label', 'label_prob', 'mask', 'real', 'source', 'synthetic', 'weight')
"""Keys of mixed samples, and the name of the other side: no source may have such a name."""


def as_pool(source: Source, draw: Draw | None = None) -> Pool:
    """The pool of a source, live or stored, and how samples are drawn from it.

    Raises:
        TypeError: if the source is neither a generator nor a dataset in the sample contract.
        ValueError: if it is empty, or the label policy lacks an argument.
    """
    draw = draw or Draw()
    if isinstance(source, Dataset):
        return StoredPool(source, draw)
    if not hasattr(source, 'sample'):
        raise TypeError(
            f'a source of synthetic samples is a generator, a bank or a dataset, found {type(source).__name__}; load a '
            'folder with Generator.from_pretrained or SyntheticBank.open; wrap data of another library in hsiaug.adapt'
        )
    return LivePool(source, draw)


def open_folder(source: Source | str | os.PathLike[str]) -> Source:
    """A bank's folder, opened; anything else as it is.

    Raises:
        BankError: if there is no bank there.
        TypeError: for the folder of a generator, which those open that know generators.
    """
    if not isinstance(source, str | os.PathLike):
        return source
    if (Path(source).expanduser() / 'config.json').exists():
        raise TypeError(
            f'{os.fspath(source)} is the folder of a generator; a bank is expected (hsiaug sample), or the generator '
            'itself: hsiaug.Generator.from_pretrained(folder)'
        )
    return SyntheticBank.open(source)


def SyntheticPool(source: Source, seed: int = 0, labels: LabelPolicy | None = None, **fields: Any) -> Pool:
    """:func:`as_pool` with the fields of :class:`Draw` as arguments."""
    return as_pool(source, Draw(seed, labels, **fields))


class Sources:
    """The sources of a mixture, each with its ratio and the way it is drawn. One without a name is the case K = 1.

    Args:
        owner: name of the class that mixes, for errors.
        source: a source or a bank's folder, or K of them by name.
        ratio: synthetic samples per real one, a schedule, or ``'auto'``; of several sources one for each name. With
            ``'auto'`` a generator has the recommended labels too, where ``labels`` is None.
        labels: classes of the samples; of several sources one for all, or one for each name.
        draw: how samples are drawn, but for their labels.
        mode: ``'append'`` or ``'replace'``.
        different_scales: values of the two sides are meant to differ by orders of magnitude.
        seen: real samples of an epoch, as far as it is known.

    Attributes:
        names: of the sources; empty for one without a name.
        pools: what samples are drawn from; none at all where empty datasets are mixed at ratio 0.
        recommendations: of each source whose ratio is ``'auto'``, else None; they go by the labels that
            ``draw.real_counts`` counts, and are 0 as long as no real sample is known (``seen`` is 0).
        schedules: ratio of each source.
        schedule: ratio of all together.
        scales: of the values of each source.

    Raises:
        TypeError: for what is no source.
        ValueError: for invalid, unknown or missing names, an invalid ratio, or an empty source.
        SpecMismatchError: if two sources do not fit together.
    """

    def __init__(
        self,
        owner: str,
        source: NamedSources,
        ratio: Ratios,
        labels: LabelPolicies,
        draw: Draw,
        mode: Mode = 'replace',
        different_scales: bool = False,
        seen: int | None = None,
    ) -> None:
        self.owner, self.mode = owner, cast(Mode, check_value(owner, 'mode', mode, Mode))
        self.names = _names(owner, source) if isinstance(source, Mapping) else ()
        found = [open_folder(one) for one in (source.values() if isinstance(source, Mapping) else [source])]
        if len(found) > 1 and not isinstance(ratio, Mapping):
            raise ValueError(
                f'{owner}: {len(found)} sources need a ratio each, found {ratio!r}; give '
                f'ratio={{{", ".join(f"{name!r}: ..." for name in self.names)}}}'
            )
        ratios = self._each(ratio, isinstance(ratio, Mapping), 'ratio')
        pairs = zip(ratios, found, strict=True)
        self.recommendations = tuple(
            self._recommended(s, draw) if r == 'auto' and seen != 0 else None for r, s in pairs
        )
        for k, known in enumerate(self.recommendations):
            ratios[k] = known.ratio if known else 0.0 if ratios[k] == 'auto' else ratios[k]
        self.schedules = tuple(map(as_schedule, ratios))
        self.schedule = together(self.schedules)
        weights = isinstance(labels, Mapping) and all(isinstance(weight, Real) for weight in labels.values())
        policies = self._each(labels, bool(self.names) and isinstance(labels, Mapping) and not weights, 'labels')
        for k, known in enumerate(self.recommendations):
            if known and policies[k] is None and not isinstance(found[k], Dataset):
                policies[k] = known.labels
        if draw.prior is not None and 'prior' not in policies:
            raise ValueError(
                f"{owner}: prior= says what labels='prior' is to reach, found labels={labels!r}; give both"
            )
        counts = [0] * len(found) if seen is None else self.counts(seen, 0)
        self.pools: tuple[Pool, ...] = ()
        if seen is None or any(counts) or not all(isinstance(s, Dataset) and not len(cast(Any, s)) for s in found):
            # Streams of their own; the first source, or the only one, has that of the seed.
            seeds = [draw.seed, *(stream_seed(draw.seed, k, SOURCES) for k in range(1, len(found)))]
            self.pools = tuple(
                as_pool(one, replace(draw, seed=seed, labels=label, total=n or None))
                for one, seed, label, n in zip(found, seeds, policies, counts, strict=True)
            )
        for name, pool in zip(self.names, self.pools, strict=False):
            pool.name = name
        specs = [(pool.name, pool.spec) for pool in self.pools if pool.spec is not None]
        for other, spec in specs[1:]:
            sides = (f'source {specs[0][0]!r}', f'source {other!r}')
            require_compatible(specs[0][1], spec, sides, 'sources of synthetic samples')
        self.scales = tuple(Scales(different_scales, title) for title in self.titles)

    def _recommended(self, source: Source, draw: Draw) -> Recommendation:
        """What is known of a source, said in the log."""
        counts = draw.real_counts
        labelled = None if counts is None or not np.any(counts) else float(counts[counts > 0].mean())
        # Which part of the training comes first, only a study or a schedule can say.
        known = recommended_ratio(source, labelled, mixed=True)
        LOGGER.info('%s: %s', self.owner, known)
        return known

    @property
    def recommendation(self) -> Recommendation | dict[str, Recommendation] | None:
        """What ``ratio='auto'`` rests on, of named sources by name; None where no ratio is ``'auto'``."""
        if not any(self.recommendations):
            return None
        if not self.names:
            return self.recommendations[0]
        return {name: known for name, known in zip(self.names, self.recommendations, strict=True) if known}

    def _each(self, value: Any, by_name: bool, what: str) -> list[Any]:
        """A setting of each source."""
        if not by_name:
            return [value] * (len(self.names) or 1)
        if unknown := sorted(map(str, set(value) - set(self.names))):
            raise ValueError(
                f'{self.owner}: {what} for unknown sources {unknown}; '
                + (f'the sources are {list(self.names)}' if self.names else 'one source without a name was given')
            )
        if missing := [name for name in self.names if name not in value]:
            raise ValueError(f'{self.owner}: {what} missing for the sources {missing}; give one for each name')
        return [value[name] for name in self.names]

    @property
    def titles(self) -> tuple[str, ...]:
        """What the samples of each source are called in messages."""
        return tuple(f'synthetic ({name})' for name in self.names) or ('synthetic',)

    @property
    def tagged(self) -> bool:
        """Whether samples say in ``source`` which source they are of."""
        return bool(self.names)

    @property
    def num_soft_classes(self) -> int | None:
        """K where samples of a source carry ``label_prob``, else None."""
        return next((soft for pool in self.pools if (soft := pool.num_soft_classes) is not None), None)

    @property
    def spec(self) -> SampleSpec | None:
        """What the samples are, by the first source that says it."""
        return next((pool.spec for pool in self.pools if pool.spec is not None), None)

    def ratios(self, epoch: int) -> list[float]:
        """(K,) ratio of each source in an epoch."""
        return [ratio_in(schedule, epoch, self.owner) for schedule in self.schedules]

    def counts(self, seen: int, epoch: int) -> list[int]:
        """(K,) samples of each source that belong to ``seen`` real ones (append) or places (replace)."""
        return source_counts(seen, self.ratios(epoch), self.mode)

    def require_mixable(self, real: Dataset[Sample]) -> SampleSpec | None:
        """Check every source against a real dataset, and return the common spec; see :func:`require_mixable`."""
        specs = [require_mixable(real, pool) for pool in self.pools]
        return specs[0]

    def class_numbers(self, spec: SampleSpec | None) -> ClassNumbers:
        """The numbers that labels may have: those of the common spec, of soft labels, or of change masks."""
        if spec is not None:
            return ClassNumbers(spec.num_classes, spec.ignore_index, spec.classes, spec.target_key)
        if (soft := self.num_soft_classes) is not None:
            return ClassNumbers(soft)
        return ClassNumbers(2, target='mask') if self.pools[0].example()['image'].ndim == 5 else ClassNumbers()

    def require_free(self, keys: Iterable[str]) -> None:
        """Check that the real samples have no key that tags of named sources would overwrite, nor one of their names.

        Raises:
            ValueError: naming the keys.
        """
        if clash := sorted({'source', *self.names} & set(keys)) if self.tagged else []:
            raise ValueError(
                f'{self.owner}: real samples have the keys {clash}, which mixed samples need for their source, '
                'or which are names of sources; rename them'
            )

    def random(self, n: int, seed: int, epoch: int = 0) -> tuple[dict[str, Tensor], np.ndarray]:
        """``n`` independent draws of all sources in their ratios, and (n,) the place of the source of each."""
        if len(self.pools) == 1:
            return self.pools[0].random(n, seed), np.zeros(n, dtype=np.int64)
        shares = np.array(self.ratios(epoch))
        shares = np.isinf(shares).astype(float) if np.isinf(shares).any() else shares
        shares = shares / shares.sum() if shares.any() else np.full(len(shares), 1 / len(shares))
        numbers = np.random.default_rng(stream_seed(self.pools[0].draw.seed, seed, WHICH)).choice(
            len(shares), size=n, p=shares
        )
        order, found = np.argsort(numbers, kind='stable'), np.bincount(numbers, minlength=len(shares))
        parts = [pool.random(int(m), seed) for pool, m in zip(self.pools, found, strict=True) if m]
        back = torch.from_numpy(np.argsort(order))
        keys = [key for key in parts[0] if all(key in part for part in parts)] if parts else []
        return {key: torch.cat([p[key] for p in parts])[back.to(parts[0][key].device)] for key in keys}, numbers

    def see(self, real: Any, synthetic: Tensor, numbers: np.ndarray) -> None:
        """Compare the values of each source with real ones until enough are known; see :class:`Scales`."""
        for number, scales in enumerate(self.scales):
            if not scales.settled:
                scales.see(real, synthetic[torch.from_numpy(numbers == number).to(synthetic.device)])

    def settings(self, epoch: int) -> dict[str, Any]:
        """What the draws of an epoch depend on, in plain values; a state dict of others is refused."""
        draws = [pool.draw for pool in self.pools]
        # A schedule that follows the training is restored by its own state, perhaps later than this.
        known = all(map(is_dataclass, self.schedules))
        return {
            'seed': draws[0].seed if draws else None,
            'mode': self.mode,
            'ratios': self.ratios(epoch) if known else None,
            'sources': list(self.names),
            'synthetic samples': [pool.held for pool in self.pools],
            'labels': [str(draw.labels) for draw in draws],
            'replacement': [draw.replacement for draw in draws],
        }

    def to(self, device: torch.device) -> None:
        """Move live generators."""
        for pool in self.pools:
            pool.to(device)

    def __repr__(self) -> str:
        if not self.names:
            return str(self.pools[0]) if self.pools else '<no samples>'
        return '{' + ', '.join(f'{name!r}: {pool}' for name, pool in zip(self.names, self.pools, strict=False)) + '}'


class Mixture:
    """What all that mixes sources says of them."""

    sources: Sources
    schedule: Schedule
    epoch: int

    @property
    def ratio(self) -> float:
        """Synthetic samples per real sample in the current epoch."""
        return self.schedule(self.epoch)

    @property
    def recommendation(self) -> Recommendation | dict[str, Recommendation] | None:
        """The ratio that ``'auto'`` stands for and its evidence, by name for named sources; None without ``'auto'``."""
        return self.sources.recommendation


def require_same(owner: str, state: Mapping[str, Any], settings: Callable[[int], dict[str, Any]]) -> int:
    """The epoch of a state dict, if it was saved with the settings of that epoch here.

    Raises:
        ValueError: naming what differs.
    """
    if missing := [key for key in ('epoch', 'settings') if key not in state]:
        raise ValueError(f'{owner}: this is not a state dict of a {owner}: {missing} missing, found {sorted(state)}')
    saved, now = state['settings'], settings(state['epoch'])
    if differs := [key for key in now if saved.get(key) != now[key]]:
        lines = [f'{key}: {saved.get(key)} when it was saved, {now[key]} here' for key in differs]
        raise ValueError(
            f'{owner}: the state dict belongs to another mixture, with other samples:\n  '
            + '\n  '.join(lines)
            + '\nUse the settings it was saved with, or start a new epoch with set_epoch(epoch).'
        )
    return int(state['epoch'])


def _names(owner: str, sources: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of sources.

    Raises:
        ValueError: if there are none, or one is no text or a key of samples.
    """
    names = tuple(sources)
    if wrong := [name for name in names if not isinstance(name, str) or not name or name in RESERVED]:
        raise ValueError(
            f'{owner}: sources cannot be called {wrong}, which are keys of samples or not names; choose others than '
            f'{list(RESERVED)}'
        )
    if not names:
        raise ValueError(f'{owner}: no source given; expected at least one, as {{"gan": generator}}')
    return names
