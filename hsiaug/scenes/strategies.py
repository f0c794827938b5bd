"""Split strategies by their short names in configs."""

from __future__ import annotations

from typing import Any

from ..named_configs import unknown
from ..settings import checked_arguments
from .change import ChangeSplitter
from .labelled_patches import LabelledPatchSplitter
from .patches import PatchSplitter
from .splits import BlockSplit, GroupSplit, HalvesSplit, RandomSplit, Splitter

SPLITTERS: dict[str, type[Splitter] | type[PatchSplitter]] = {
    'random': RandomSplit,
    'halves': HalvesSplit,
    'groups': GroupSplit,
    'blocks': BlockSplit,
    'patches': PatchSplitter,
    'change_patches': ChangeSplitter,
    'labelled_patches': LabelledPatchSplitter,
}
"""The first four split pixels; the others cut image-mask pairs, pairs of dates (balanced by change), and patches with
one label each."""


def make_splitter(strategy: str = 'random', **settings: Any) -> Splitter | PatchSplitter:
    """A splitter by its short name.

    Raises:
        ValueError: for an unknown strategy or setting, with the choices.
    """
    if strategy not in SPLITTERS:
        raise ValueError(unknown('split strategy', strategy, SPLITTERS))
    return SPLITTERS[strategy](**checked_arguments(SPLITTERS[strategy], settings, f'split {strategy!r}'))
