"""Whether a training of a downstream model was long enough, and tuning until it is.

Nearly every large loss from synthetic samples that was ever measured here went with a network that had not converged:
all arms take equally many steps, and those that are mixed in take steps away from the real ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import nn

C = TypeVar('C', bound=Hashable)
FALL = 0.05
"""Share of the first loss by which the loss of a training that was too short falls in its last third."""


def still_falls(losses: Sequence[float], since: int = 0) -> bool:
    """Whether the loss of a training still fell when the training ended.

    Learning rates that fall to zero end every curve flat, so that its last steps say nothing: what counts is the mean
    loss of the last third of the steps against that of the third before, by more than :data:`FALL` of the loss of the
    first twentieth. A curve of fewer than 20 steps always falls.

    Args:
        losses: of each step, in order.
        since: step at which the data changed, such as from synthetic to real ones: thirds are of what came after.
    """
    count = len(losses) - since
    if count < 20:
        return True
    first = math.fsum(losses[: count // 20]) / (count // 20)
    middle, last = losses[since + count // 3 : since + 2 * count // 3], losses[since + 2 * count // 3 :]
    return math.fsum(middle) / len(middle) - math.fsum(last) / len(last) > FALL * first


def loss_still_falls(network: nn.Module, since: float = 0.0) -> bool | None:
    """:func:`still_falls` of a network that one of the trainers here returned, and None where it is not known.

    The data changed after a share ``since`` of the steps.
    """
    losses = getattr(network, 'loss_history', None)
    return None if losses is None else still_falls(losses, round(since * len(losses)))


@dataclass(frozen=True)
class Trial:
    """What came of training with one candidate: the score on validation data, NaN where the training diverged.

    ``falls`` says whether the loss still fell at the end; None where there is no loss.
    """

    score: float
    falls: bool | None = None


@dataclass(frozen=True)
class Tuned(Generic[C]):
    """The chosen candidate and what all that were tried came to."""

    chosen: C
    trials: dict[C, Trial]


def tune(
    candidates: Iterable[C],
    measure: Callable[[C], Trial],
    length: Callable[[C], tuple[Hashable, int]],
    error: Callable[[float], float] = lambda score: 0.0,
) -> Tuned[C]:
    """Choose a setting, and for how many steps to train with it.

    Longer trainings of a setting are tried until the loss no longer falls at the end and the score is no higher than
    before. A candidate takes the place of an earlier one if it scores more than ``error`` higher, or if it has
    converged, the other has not, and it scores no more than ``error`` lower. Few labels validate noisily: without the
    error, luck chooses settings that do harm.

    Args:
        candidates: the default first.
        measure: trains with a candidate.
        length: setting of a candidate but for its number of steps, and this.
        error: standard error of a score.

    Returns:
        the choice, and what was tried; where all trainings diverge it is the first, and its score NaN.

    Raises:
        ValueError: without a candidate.
    """
    settings: dict[Hashable, list[tuple[int, C]]] = {}
    for candidate in candidates:
        setting, steps = length(candidate)
        settings.setdefault(setting, []).append((steps, candidate))
    trials: dict[C, Trial] = {}
    chosen: C | None = None
    for lengths in settings.values():
        before = math.inf
        for _, candidate in sorted(lengths, key=lambda one: one[0]):
            trial = trials[candidate] = measure(candidate)
            if chosen is None or _better(trial, trials[chosen], error):
                chosen = candidate
            if not trial.falls and trial.score <= before < math.inf:
                break
            before = trial.score
    if chosen is None:
        raise ValueError('tune: no candidate to choose from')
    return Tuned(chosen, trials)


def _better(trial: Trial, best: Trial, error: Callable[[float], float]) -> bool:
    if math.isnan(best.score) or math.isnan(trial.score):
        return math.isnan(best.score) and not math.isnan(trial.score)
    margin = error(best.score)
    if best.falls and not trial.falls:
        return trial.score >= best.score - margin
    return trial.score > best.score + margin and (not trial.falls or bool(best.falls))
