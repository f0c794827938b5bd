"""Trainings of several stages, which share one checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..datasets.shared import world
from .checkpoint import resumable
from .run import Run
from .training import Training

S = TypeVar('S', bound=Training)


def run_stages(stages: Mapping[str, Callable[[], S]], run: Run, name: str, identity: Mapping[str, Any]) -> S | None:
    """Run the stages of a training one after another, starting at the checkpoint's, and remove the checkpoint.

    A stage starts with a checkpoint of its own, so that a kill never costs a stage that is done; its result is in it.

    Args:
        stages: how each is made, by name, in their order; it is made when the one before has ended.
        run: how, and in which folder the checkpoint is kept.
        name: of the checkpoint's file.
        identity: what a checkpoint must agree in to be this training's.

    Returns:
        the last stage; None if there are none.

    Raises:
        FloatingPointError: if the training diverges; the last good checkpoint stays.
    """
    file = run.checkpoint(name)
    found = resumable(file, identity)
    order, stage = list(stages), None
    first = 0 if found is None else order.index(found['stage'])
    for number, make in enumerate(list(stages.values())[first:]):
        stage = make()
        if file is not None and found is not None and number == 0:
            stage.load(file)
        elif file is not None and number + first and world()[0] == 0:
            stage.save(file, identity)
        stage.run(run, file, identity)
    if file is not None and world()[0] == 0:
        file.unlink(missing_ok=True)
    return stage
