"""How the stages of latent diffusion are run by Lightning, watched, and kept in checkpoints."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm.auto import tqdm

from .divergence import CHECK_EVERY, require_finite
from .latent_stages import Stage


class Watch(Callback):
    """Shows progress, stops a diverged training, and leaves checkpoints and previews.

    Args:
        file: of the checkpoint, or None for none.
        identity: of the training, written into it.
        every: steps between two checkpoints.
        preview: called with the stage after so many steps.
        preview_every: steps between two previews.
        progress: show a progress bar.
    """

    def __init__(
        self,
        file: Path | None,
        identity: Mapping[str, Any],
        every: int,
        preview: Callable[[Stage], None] | None,
        preview_every: int,
        progress: bool,
    ) -> None:
        self.file, self.identity, self.every = file, identity, every
        self.preview, self.preview_every, self.progress = preview, preview_every, progress
        self.bar: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        stage = _as_stage(pl_module)
        self.bar = tqdm(total=stage.steps, initial=stage.step, desc=stage.name, unit='it', disable=not self.progress)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss from time to time."""
        stage = _as_stage(pl_module)
        step = stage.step
        last, due = step == stage.steps, self.file is not None and step % self.every == 0
        if last or due or step % CHECK_EVERY == 0:
            self._require_finite(stage, step, thorough=last or due)
            if self.progress:
                self.bar.set_postfix(loss=f'{float(stage.loss):.4f}')
        self.bar.update()
        if due and self.file is not None:
            stage.save(self.file, self.identity)
        if self.preview is not None and step % self.preview_every == 0:
            self.preview(stage)

    def _require_finite(self, stage: Stage, step: int, thorough: bool) -> None:
        diverged = f'training diverged in stage {stage.name!r} by step {step}'
        modules = {'trained': stage.trained} if thorough else {}
        rate = f'{stage.name}_lr ({stage.lr:g})'
        require_finite(diverged, {'loss': float(stage.loss)}, modules, rate, self.file, stage.name)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


def _as_stage(module: LightningModule) -> Stage:
    if not isinstance(module, Stage):
        raise TypeError(f'Watch is for stages of latent diffusion, found {type(module).__name__}')
    return module


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice on data loaders and devices, which does not apply to steps in memory."""
    loggers = [logging.getLogger(name) for name in ('lightning.pytorch', 'lightning.fabric')]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', module='lightning.*')
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def run(stage: Stage, watch: Watch, device: str, precision: str) -> None:
    """Take the steps that a stage has left.

    Raises:
        FloatingPointError: if the training diverges.
    """
    if stage.step >= stage.steps:
        return
    where = torch.device(device)
    handler = signal.getsignal(signal.SIGINT)
    with _quiet():
        trainer = Trainer(
            accelerator={'cuda': 'gpu'}.get(where.type, where.type),
            devices=1 if where.index is None or where.type == 'cpu' else [where.index],
            precision='bf16-mixed' if precision == 'bf16' else '32-true',
            max_epochs=1,
            gradient_clip_val=1.0,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            # A batch is the number of its step; the data are on the device already.
            trainer.fit(stage.train(), train_dataloaders=range(stage.step, stage.steps))
        except SystemExit as error:
            # Lightning answers Ctrl-C by leaving Python; a caller in a notebook wants the exception.
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from error
    stage.eval()


__all__ = ['Watch', 'run']
