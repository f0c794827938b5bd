"""A ratio that adapts to the validation score during training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from ..datasets.shared import SharedInt
from ..ratio import Schedule, require_ratio
from ..settings import ANY, COUNT, NOT_NEGATIVE, POSITIVE, Range, check_value
from ..streams import stream_seed


class AdaptiveRatio(Schedule):
    """A schedule that is a bandit over ratios, rewarded by the progress of the validation score.

    Exp3.S on scaled learning progress (Graves et al., "Automated Curriculum Learning for Neural Networks", ICML 2017,
    https://arxiv.org/abs/1704.03003; Auer et al., "The Nonstochastic Multiarmed Bandit Problem", SIAM J. Comput. 32,
    2002): each round of ``every`` epochs is trained at one ratio. The increase of the score over the round, ranked
    among all increases so far, is its reward in [-1, 1]. Old rewards decay, since what helps early need not help late.

    If the scores of a training on real data alone are given, the two are compared: once the exponential mean of its own
    scores has been below that of the reference for ``patience`` epochs, the ratio is 0 until the end.

    Use ``mode='replace'``, so that epochs keep their length. The current ratio is in shared memory, so that persistent
    workers see it change. Call :meth:`observe` after each epoch, or use :class:`RatioCallback`.

    Args:
        ratios: ratios to choose from, including 0.
        every: number of epochs per round.
        rate: learning rate of the weights.
        explore: probability of a random choice.
        reference: score after each epoch of a training on real data alone; None without one.
        tolerance: difference to the reference that is tolerated.
        patience: number of epochs below the reference after which synthetic samples are given up.
        smoothing: weight of the newest score in the exponential means.
        seed: seed of the choices.

    Raises:
        ValueError: if 0 is not among the ratios, or a number is out of its range.
    """

    def __init__(
        self,
        ratios: Sequence[float] = (0.0, 0.5, 1.0, 2.0),
        every: int = 1,
        rate: float = 0.2,
        explore: float = 0.1,
        reference: Sequence[float] | None = None,
        tolerance: float = 0.0,
        patience: int = 5,
        smoothing: float = 0.3,
        seed: int = 0,
    ) -> None:
        for what, given in (('ratios', ratios), ('reference', reference)):
            check_value('AdaptiveRatio', what, given, tuple[Any, ...] | None)
        self.ratios = tuple(require_ratio(ratio) for ratio in ratios)
        if 0.0 not in self.ratios or len(set(self.ratios)) != len(self.ratios) or len(self.ratios) < 2:
            raise ValueError(f'AdaptiveRatio: expected 0 and other ratios, each once, found {ratios}')
        for name, count, whole in (('every', every, COUNT), ('patience', patience, COUNT), ('seed', seed, ANY)):
            check_value('AdaptiveRatio', name, count, int, whole)
        share = Range(0, 1, open_low=True)
        for name, value, within in (
            ('smoothing', smoothing, share), ('explore', explore, share), ('rate', rate, POSITIVE),
            ('tolerance', tolerance, NOT_NEGATIVE),
        ):  # fmt: skip
            check_value('AdaptiveRatio', name, value, float, within)
        for score in reference if reference is not None else ():
            check_value('AdaptiveRatio', 'score of the reference', score, float, ANY)
        self.every, self.rate, self.explore, self.seed = every, rate, explore, seed
        self.reference = None if reference is None else [float(score) for score in reference]
        self.tolerance, self.patience, self.smoothing = tolerance, patience, smoothing
        self.scores: list[float] = []
        self.rises: list[float] = []
        self.history: list[float] = []
        self._weights = np.zeros(len(self.ratios))
        self._behind = 0
        self._arm = SharedInt(0)  # persistent workers hold a copy of this object
        self._choose(0)

    def __call__(self, epoch: int) -> float:
        """Ratio of an epoch: of a past one as it was, of any other the current one."""
        return self.history[epoch] if epoch < len(self.history) else self.ratios[self._arm.value]

    @property
    def given_up(self) -> bool:
        """Whether the training has fallen behind the reference."""
        return self._behind >= self.patience

    def chances(self) -> np.ndarray:
        """(R,) probability of each ratio in the next choice."""
        share = np.exp(self._weights - self._weights.max())
        return (1 - self.explore) * share / share.sum() + self.explore / len(self.ratios)

    def observe(self, epoch: int, score: float) -> None:
        """Report the validation score after an epoch (higher is better), which determines the ratio of the next epoch.

        Raises:
            ValueError: if an epoch is skipped or repeated, or the score is not finite.
        """
        if epoch != len(self.scores) or not math.isfinite(score):
            raise ValueError(
                f'AdaptiveRatio: a finite score of epoch {len(self.scores)} expected, found {score} of epoch {epoch}'
            )
        self.history.append(self.ratios[self._arm.value])
        self.scores.append(float(score))
        self._compare()
        if len(self.scores) % self.every:
            return
        if len(self.scores) > self.every:  # the first round has no earlier score to compare with
            self._reward(self.scores[-1] - self.scores[-1 - self.every])
        self._choose(len(self.scores) // self.every)

    def _compare(self) -> None:
        if self.reference is None or self.given_up or len(self.scores) > len(self.reference):
            return
        own, real = self.scores[0], self.reference[0]  # exponential means
        for mine, theirs in zip(self.scores[1:], self.reference[1:], strict=False):
            own, real = own + self.smoothing * (mine - own), real + self.smoothing * (theirs - real)
        self._behind = self._behind + 1 if own < real - self.tolerance else 0
        if self.given_up:
            self._arm.value = self.ratios.index(0.0)

    def _reward(self, rise: float) -> None:
        """Scale an increase by the 20 % and 80 % quantiles of all so far, and reward the ratio that produced it."""
        self.rises.append(rise)
        low, high = np.quantile(self.rises, [0.2, 0.8])
        reward = 0.0 if high <= low else float(np.clip(2 * (rise - low) / (high - low) - 1, -1, 1))
        paid = np.zeros(len(self.ratios))
        arm = self._arm.value
        paid[arm] = reward / self.chances()[arm]
        weights = np.exp(np.clip(self._weights + self.rate * paid, -50, 50))
        # Weights leak into each other, so that old rewards are forgotten.
        leak = 1 / (len(self.rises) + 1)
        others = (weights.sum() - weights) / (len(weights) - 1)
        self._weights = np.log((1 - leak) * weights + leak * others)

    def _choose(self, number: int) -> None:
        if self.given_up:
            return
        rng = np.random.default_rng(stream_seed(self.seed, number))
        self._arm.value = int(rng.choice(len(self.ratios), p=self.chances()))

    def state_dict(self) -> dict[str, Any]:
        """State from which a checkpoint continues with the same choices; JSON-ready."""
        return {
            'scores': list(self.scores), 'rises': list(self.rises), 'history': list(self.history),
            'weights': self._weights.tolist(), 'behind': self._behind, 'arm': self._arm.value,
            'ratios': list(self.ratios),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`.

        Raises:
            ValueError: for the state of a choice among other ratios.
        """
        of = state.get('ratios', list(self.ratios))  # older checkpoints do not have them
        if of != list(self.ratios) or len(state['weights']) != len(self.ratios):
            raise ValueError(
                f'AdaptiveRatio: the state is of {len(state["weights"])} ratios, {of}, this schedule of '
                f'{list(self.ratios)}; resume with the ratios that the training began with'
            )
        self.scores, self.rises, self.history = (list(state[key]) for key in ('scores', 'rises', 'history'))
        self._weights, self._behind = np.array(state['weights']), int(state['behind'])
        self._arm.value = int(state['arm'])


class RatioCallback(Callback):
    """Reports the validation score of each epoch of a Lightning training to a schedule, and keeps it in checkpoints.

    Args:
        ratio: the schedule that the datamodule or dataset mixes with.
        monitor: name of a logged validation metric.
        mode: ``'max'`` if higher is better, ``'min'`` for a loss.

    Raises:
        ValueError: for an unknown mode.
    """

    def __init__(self, ratio: AdaptiveRatio, monitor: str, mode: Literal['max', 'min'] = 'max') -> None:
        if mode not in ('max', 'min'):
            raise ValueError(f"RatioCallback: unknown mode {mode!r}; choose from 'max', 'min'")
        self.ratio, self.monitor, self.mode = ratio, monitor, mode

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Observe the metric of the epoch.

        Raises:
            ValueError: if no such metric is logged.
        """
        if trainer.sanity_checking or trainer.current_epoch < len(self.ratio.scores):
            return
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f'RatioCallback: no metric {self.monitor!r} is logged; choose from {sorted(trainer.callback_metrics)}'
            )
        value = float(trainer.callback_metrics[self.monitor])
        self.ratio.observe(trainer.current_epoch, value if self.mode == 'max' else -value)

    def state_dict(self) -> dict[str, Any]:
        """The schedule's state."""
        return self.ratio.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.ratio.load_state_dict(state_dict)
