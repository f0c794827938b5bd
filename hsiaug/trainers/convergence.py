"""Checks whether the training of a downstream model has converged, and tunes it until it does.

Nearly every large loss from synthetic samples measured here occurred with a network that had not converged: all arms
take equally many steps, and synthetic samples take steps away from the real ones.
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
    """Whether the loss was still falling when training ended.

    When the learning rate falls to zero, every curve ends flat, so that its last steps tell nothing. The loss counts as
    falling if its mean over the last third of the steps is lower than over the third before, by more than :data:`FALL`
    of the size of the mean over the first twentieth. A curve of fewer than 20 steps, or with NaN, counts as falling.

    Args:
        losses: loss of each step, in order.
        since: step at which the data changed, for example from synthetic to real; the thirds are of the steps after it.
    """
    count = len(losses) - since
    if count < 20:
        return True
    first = math.fsum(losses[: count // 20]) / (count // 20)
    middle, last = losses[since + count // 3 : since + 2 * count // 3], losses[since + 2 * count // 3 :]
    # A loss that is NaN has not converged either.
    return not math.fsum(middle) / len(middle) - math.fsum(last) / len(last) <= FALL * abs(first)


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
    """Choose a setting and the number of training steps.

    A setting is trained longer until the loss no longer falls at the end and the score does not rise further. A
    candidate replaces an earlier one if it scores more than ``error`` higher; or if it has converged, the other has
    not, and it scores at most ``error`` lower. Scores on few validation labels are noisy: without ``error``, chance
    would choose harmful settings.

    Args:
        candidates: candidates, the default first.
        measure: trains with a candidate.
        length: the setting of a candidate without its number of steps, and that number.
        error: standard error of a score.

    Returns:
        the choice, and all trials; if all trainings diverge, the first candidate with score NaN.

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
