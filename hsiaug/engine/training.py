"""The training loop of every model: run, checked, kept in checkpoints, resumed, on one device or many.

A step depends on its number, the seed and the state of the weights only. So a training that resumes from a checkpoint
ends with the weights of an undisturbed one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, nn
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters

from ..datasets.shared import world
from ..progress import progress_bar
from ..settings import NOT_NEGATIVE, check_value
from ..streams import stream_of_process, stream_of_step
from .checkpoint import found_checkpoint, restore, resumable, state_of, write_checkpoint
from .cuda_graphs import capture, make_capturable, wanted
from .divergence import CHECK_EVERY, require_finite
from .interrupts import between_steps
from .loss_log import LossLog
from .run import Run
from .schedules import Schedule, constant

COLLAPSED = 0.01  # binary cross-entropy of a discriminator that is never wrong; that of guessing is 0.69
Precision = Literal['32', 'tf32', 'bf16']
"""``'tf32'``: matrix products of ten bits on GPUs that have them; ``'bf16'``: networks compute in bfloat16, mixed."""
PATIENCE = 6  # looks in a row that find it collapsed
S = TypeVar('S', bound='Training')


@dataclass(frozen=True)
class _Recorded:
    """A step that can be replayed, where it reads what is given, and where it leaves its losses."""

    replay: Callable[[], None]
    given: tuple[Tensor, ...]
    losses: dict[str, Tensor]


class Training:
    """State of a training, or of one stage of it. A subclass defines what a step does.

    Args:
        name: name of the stage, in checkpoints and messages.
        modules: all modules that a step reads or changes, by name, on the device.
        optimisers: optimisers by name; their learning rates are the highest that the schedule reaches.
        steps: number of steps.
        seed: seed of all randomness.
        device: device to train on.
        schedule: factor of the learning rates, by step.
    """

    rate_setting = 'the learning rate'
    """What to lower if the training diverges: name and value of the setting."""
    precision: Precision = '32'
    """Precision in which networks compute; weights and optimiser states always have single precision."""
    batch_size: int
    """Samples per step, over all processes."""
    alone = False
    """Whether this process trains by itself, independently of any others, and keeps no checkpoints."""
    replayable = False
    """Whether :meth:`update` issues the same operations in every step of a :meth:`phase`.

    Then only weights, random numbers and ``given`` tensors vary between steps, and the host decides nothing. On a GPU
    such a step is recorded once as a CUDA graph and then replayed.
    """

    def __init__(
        self,
        name: str,
        modules: Mapping[str, nn.Module],
        optimisers: Mapping[str, torch.optim.Optimizer],
        steps: int,
        seed: int,
        device: torch.device,
        schedule: Schedule = constant,
    ) -> None:
        self.name, self.modules, self.optimisers = name, dict(modules), dict(optimisers)
        self.steps = check_value(type(self).__name__, 'steps', steps, int, NOT_NEGATIVE)
        self.step, self.seed, self.device, self.schedule = 0, seed, device, schedule
        # Kept here: a checkpoint must not bring back the rate that a training diverged with.
        self.rates = {key: [float(g['lr']) for g in found.param_groups] for key, found in optimisers.items()}
        self.losses: dict[str, Tensor] = {}
        """Losses of the last step; ``'discriminator'`` is the binary cross-entropy of a discriminator, if any."""
        self.preview: Callable[[Any], None] | None = None
        """Called with the training after every step of a run, to draw samples from time to time."""
        self._looks_collapsed = 0
        self._log: LossLog | None = None
        self.given: tuple[Tensor, ...] = ()
        """What :meth:`prepare` returned for this step."""
        self._recorded: dict[Hashable, _Recorded] | None = None
        """Recorded steps by phase and shapes of what is given; None if steps are not recorded, and before the first."""

    def prepare(self, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Return what the host selects for the next step, such as a batch, on the device; :attr:`given` holds it."""
        return ()

    def phase(self) -> Hashable:
        """Kind of the next step, if there are several; each kind is recorded separately."""
        return None

    def update(self, rng: torch.Generator) -> None:
        """Take one step, with all randomness from ``rng``, and set :attr:`losses`."""
        raise NotImplementedError

    def mixed(self, enabled: bool = True) -> torch.autocast:
        """Context in which networks compute in the requested precision; in single precision if not ``enabled``."""
        # Without the cache: what is cast where no gradient is wanted would have none later either.
        enabled = enabled and self.precision == 'bf16'
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)

    def before_steps(self) -> None:
        """Called once by :meth:`run`, before its first step."""

    def after_step(self) -> None:
        """Called after every step, for example to update an average of the weights."""

    def descend(self, name: str, loss: Tensor, clip: float | None = None) -> None:
        """One step of an optimiser down a loss, with gradients averaged over all processes.

        Args:
            name: of the optimiser.
            loss: mean over this process's part of the batch.
            clip: largest norm of the gradient.
        """
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in optimiser.param_groups for p in group['params'] if p.grad is not None]
        if not self.alone:
            average_gradients(parameters)
        if clip is not None:
            clip_grad_norm_(parameters, clip)
        optimiser.step()

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch that all processes have drawn alike.

        Raises:
            ValueError: if the batch cannot be shared evenly, which would change the mean over it.
        """
        rank, processes = world()
        if processes == 1:
            return batch
        if len(batch) % processes:
            raise ValueError(
                f'stage {self.name!r}: a batch of {len(batch)} cannot be shared by {processes} processes; choose a '
                f'batch_size that is a multiple of {processes}'
            )
        size = len(batch) // processes
        return batch[rank * size : (rank + 1) * size]

    def rows(self, count: int, rng: torch.Generator) -> Tensor:
        """Which of ``count`` samples this process takes, of a random batch that all share."""
        return self.share(torch.randint(count, (self.batch_size,), generator=rng, device=self.device))

    def noise(self, shape: Sequence[int], rng: torch.Generator) -> Tensor:
        """This process's part of normal noise for a batch of values of such a shape."""
        return self.share(torch.randn((self.batch_size, *shape), generator=rng, device=self.device))

    def minimise(self, name: str, loss: Tensor) -> None:
        """:meth:`descend` a loss, which is reported by the optimiser's name."""
        self.descend(name, loss)
        self.losses[name] = loss.detach()

    def advance(self, rng: torch.Generator) -> None:
        """Take the next step and count it; its random numbers depend on seed, stage and step only.

        Args:
            rng: generator on the device; it is reseeded for this step.
        """
        rng.manual_seed(stream_of_step(self.seed, self.name, self.step))
        if self._recorded is None and self.replayable and wanted(self.device):
            self._recorded = {}
            make_capturable(self.optimisers, self.device, rates=self.schedule is not constant)
        self._set_rates()
        given = self.prepare(rng)
        if self._recorded is None:
            self.given = given
            self.update(rng)
        else:
            self._replay(rng, given, self._recorded)
        if self._log is not None:
            self._log.add(self.losses)
        self.step += 1
        self.after_step()

    def _set_rates(self) -> None:
        factor = self.schedule(self.step, self.steps)
        for name, optimiser in self.optimisers.items():
            for group, rate in zip(optimiser.param_groups, self.rates[name], strict=True):
                if isinstance(group['lr'], Tensor):
                    group['lr'].fill_(rate * factor)
                else:
                    group['lr'] = rate * factor

    def _replay(self, rng: torch.Generator, given: tuple[Tensor, ...], known: dict[Hashable, _Recorded]) -> None:
        kind = self.phase(), tuple((x.shape, x.dtype) for x in given)
        if kind not in known:
            self.given = tuple(x.clone() for x in given)
            replay = capture(lambda: self.update(rng), self.modules, self.optimisers, rng, self.device)
            known[kind] = _Recorded(replay, self.given, dict(self.losses))
        step = known[kind]
        for place, value in zip(step.given, given, strict=True):
            place.copy_(value)
        self.losses = dict(step.losses)
        step.replay()

    def own_stream(self, rng: torch.Generator) -> torch.Generator:
        """The stream as it is, or one of this process's own where several share a batch: for draws inside a network."""
        rank, processes = world()
        return rng if processes == 1 else stream_of_process(rng, rank)

    def run(self, run: Run, file: Path | None = None, identity: Mapping[str, Any] | None = None) -> None:
        """Take the steps that are left.

        Args:
            run: how: steps between two checkpoints, and whether to show a progress bar.
            file: of the checkpoint, or None for none.
            identity: of the training, written into it: what must agree for another call to resume.

        Raises:
            FloatingPointError: if the training diverges; the last good checkpoint stays.
            KeyboardInterrupt: on Ctrl-C or a termination request, after the step in hand and a checkpoint.
        """
        rank, _ = world()
        self.before_steps()
        rng = torch.Generator(self.device)
        if run.losses is not None and not self.alone and rank == 0:
            self._log = LossLog(run.losses, self.name, self.steps, self.step)
        shown = run.progress and rank == 0
        with (
            between_steps() as request,
            matrix_products(self.precision),
            progress_bar(shown, total=self.steps, initial=self.step, desc=self.name, unit='it', leave=False) as advance,
        ):
            while self.step < self.steps:
                self.advance(rng)
                last = self.step == self.steps
                due = file is not None and (self.step % run.every == 0 or (request.asked and not last))
                looks = due or last or self.step % CHECK_EVERY == 0
                values = self._look(file, thorough=due or last) if looks else {}
                advance(1, **values)
                if self.preview is not None:
                    self.preview(self)
                if due and file is not None and rank == 0:
                    self.save(file, identity or {})
                if request.asked:
                    raise KeyboardInterrupt

    def complete(self, run: Run, name: str, identity: Mapping[str, Any], keep: bool = False) -> None:
        """Take all steps: the only stage of :func:`run_stages`."""
        run_stages({self.name: lambda: self}, run, name, identity, keep)

    def _look(self, file: Path | None, thorough: bool) -> dict[str, float]:
        """Losses as numbers, after a check that they, and if ``thorough`` the weights, are finite."""
        values = {name: float(loss) for name, loss in self.losses.items()}
        diverged = f'{self.name} diverged' if self.alone else f'training diverged in stage {self.name!r}'
        modules, stage = self.modules if thorough else {}, None if self.alone else self.name
        if self._log is not None:
            self._log.write()
        require_finite(f'{diverged} by step {self.step}', values, modules, self.rate_setting, file, stage)
        self._looks_collapsed = self._looks_collapsed + 1 if values.get('discriminator', 1.0) < COLLAPSED else 0
        if self._looks_collapsed == PATIENCE:
            warnings.warn(
                f'the discriminator is hardly ever wrong (loss {values["discriminator"]:.2g} at step {self.step} of '
                f'{self.name!r}, where guessing gives 0.69): the adversarial loss teaches little from here on; lower '
                'its learning rate or the number of steps, or give it more data',
                stacklevel=5,
            )
        return values

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def save(self, file: Path, identity: Mapping[str, Any]) -> None:
        """Write everything that the next step depends on; the file appears whole or not at all."""
        write_checkpoint(file, state_of(self.modules, self.optimisers), identity, self.name, self.step)

    def load(self, file: Path) -> None:
        """Resume from a checkpoint of this stage."""
        restore(load_file(file), self.modules, self.optimisers)
        self.step = int(found_checkpoint(file)['step'])


def run_stages(
    stages: Mapping[str, Callable[[], S]], run: Run, name: str, identity: Mapping[str, Any], keep: bool = False
) -> S | None:
    """Run the stages of a training one after another, from the checkpoint that a killed one has left, and remove it.

    A stage starts with a checkpoint of its own, so that a kill never costs a stage that is done; its result is in it.

    Args:
        stages: how each is made, by name, in their order; it is made when the one before has ended.
        run: how, and in which folder the checkpoint is kept.
        name: of the checkpoint's file.
        identity: what a checkpoint must agree in to be this training's.
        keep: leave the checkpoint of the last step instead, from which the same call has its result at once.

    Returns:
        the last stage; None if there are none.

    Raises:
        ValueError: if the checkpoint is of another training.
        FloatingPointError: if the training diverges; the last good checkpoint stays.
    """
    file, writes = run.checkpoint(name), world()[0] == 0
    found, stage = resumable(file, identity), None
    first = 0 if found is None else list(stages).index(found['stage'])
    for number, make in enumerate(list(stages.values())[first:]):
        stage = make()
        if file is not None and found is not None and number == 0:
            stage.load(file)
        elif file is not None and number + first and writes:
            stage.save(file, identity)
        stage.run(run, file, identity)
    if file is not None and writes and keep and stage is not None:
        stage.save(file, identity)
    elif file is not None and writes:
        file.unlink(missing_ok=True)
    return stage


@contextmanager
def matrix_products(precision: Precision) -> Iterator[None]:
    """Let matrix products be of TF32 inside, where that was asked for; otherwise torch's own setting stays."""
    if precision != 'tf32':
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high')
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace gradients by their mean over all processes: with equal parts of a batch, that of the whole batch."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if (processes := world()[1]) == 1 or not gradients:
        return
    flat = parameters_to_vector(gradients)
    distributed.all_reduce(flat)
    vector_to_parameters(flat / processes, gradients)
