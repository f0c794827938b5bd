"""How a training runs, apart from what it learns: one value instead of eight parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import distributed

from ..settings import check_value


@dataclass(frozen=True)
class Run:
    """How a training runs.

    Args:
        seed: of everything random; torch's global generator is left as it was.
        device: where to train, such as ``'cpu'``, ``'cuda'`` or ``'cuda:1'``.
        devices: processes on each machine, each on a device of its own. They share every batch and end with the same
            weights.
        nodes: machines; torchrun or SLURM starts the same command on each.
        folder: where a checkpoint is kept, from which a killed training resumes with the same result; None for none.
        every: steps between two checkpoints.
        progress: show a progress bar.
        losses: file that the losses are logged in, as comma-separated values; None for none.

    Raises:
        ValueError: if a number is below 1.
    """

    seed: int = 0
    device: str = 'cpu'
    devices: int = 1
    nodes: int = 1
    folder: Path | None = None
    every: int = 500
    progress: bool = False
    losses: Path | None = None

    def __post_init__(self) -> None:
        for name in ('devices', 'nodes', 'every'):
            check_value('Run', name, getattr(self, name), int)

    def checkpoint(self, name: str) -> Path | None:
        """File of a checkpoint in the run's folder, which is looked at before anything is trained.

        Raises:
            OSError: if nothing can be written there.
        """
        if self.folder is None:
            return None
        folder = Path(self.folder).absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not (there.is_dir() and os.access(there, os.W_OK)):
            why = 'cannot be written to' if there.is_dir() else 'is a file'
            raise OSError(f'no checkpoint can be kept in {folder}: {there} {why}; give another folder, or none')
        return folder / name

    @contextmanager
    def launched(self) -> Iterator[torch.device]:
        """Start the other processes of a run, if there are any, and give this one's device.

        The processes run the same script, as ``torchrun`` does; under torchrun or SLURM they are there already. Within
        a run that is launched, this gives the device that it names.
        """
        if self.devices * self.nodes == 1 or distributed.is_initialized():
            yield torch.device(self.device)
            return
        fabric = Fabric(accelerator=torch.device(self.device).type, devices=self.devices, num_nodes=self.nodes)
        fabric.launch()
        try:
            yield fabric.device
        finally:  # the threads of its process group must not outlive the interpreter
            distributed.destroy_process_group()
