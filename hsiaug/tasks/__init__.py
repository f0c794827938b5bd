"""One task for each kind of sample, with everything that depends on the kind."""

from typing import Any

from ..datasets import SampleSplit
from ..samples import Kind, SampleSpec
from .base import Comparison, Evaluation, Task, one_date, whole
from .change import DatePairs, Detector
from .downstream import Downstream, Network
from .scene import LabelledImages, SceneClassifier
from .segmentation import Patches, Segmenter
from .spectrum import METRICS, Classifier, Spectra

TASKS: dict[Kind, Task] = {
    'spectrum': Spectra(),
    'scene': LabelledImages(),
    'segmentation': Patches(),
    'change': DatePairs(),
}
"""Every task, by the kind of its samples."""


def task_of(samples: Any) -> Task:
    """The task of a kind or a spec, or of a dataset, a generator or a downstream model that says one of these.

    Raises:
        ValueError: if it says neither.
    """
    found = getattr(samples, 'spec', None) or samples
    kind = found.kind if isinstance(found, SampleSpec | Downstream) else found
    if kind not in TASKS:
        raise ValueError(
            f'task_of: a kind of samples out of {list(TASKS)}, or something with a spec, expected, found {samples!r}; '
            'wrap a dataset that has none'
        )
    return TASKS[kind]


def task_of_split(split: Any, dates: int = 1) -> Task:
    """The task of the samples that a split gives, of a scene with so many dates.

    ``split`` may be a split, what makes one, or the class of either; of samples of datasets a split.

    Raises:
        TypeError: if it is none.
    """
    if isinstance(split, SampleSplit):
        return TASKS[split.kind]
    cls = split if isinstance(split, type) else type(split)
    for kind in ('scene', 'change', 'segmentation', 'spectrum'):  # labelled patches are a kind of patches
        task = TASKS[kind]  # type: ignore[index]
        if issubclass(cls, task.splits) and dates >= task.dates:
            return task
    raise TypeError(f'a split of pixels, into patches or into labelled patches expected, found {cls.__name__}')


__all__ = [
    'METRICS',
    'TASKS',
    'Classifier',
    'Comparison',
    'Detector',
    'Downstream',
    'Evaluation',
    'Network',
    'SceneClassifier',
    'Segmenter',
    'Task',
    'one_date',
    'task_of',
    'task_of_split',
    'whole',
]
