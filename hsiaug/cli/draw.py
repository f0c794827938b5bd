"""What ``hsiaug sample`` does on one or many devices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..datasets import LabelPolicy

if TYPE_CHECKING:
    from ..datasets import SyntheticBank
    from ..samples import SampleSpec
    from ..systems import Generator


def require_device(name: str, devices: int = 1, nodes: int = 1) -> str:
    """Check that this machine has what is asked for, before any work is done.

    Returns:
        the device; for ``'auto'`` a GPU where there is one, which is said.

    Raises:
        ValueError: for an unknown device, or fewer GPUs than asked for.
    """
    import torch

    if min(devices, nodes) < 1:
        raise ValueError(f'devices and nodes must be at least 1, found {devices} and {nodes}')
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
        if name == 'cuda':  # what nobody has named is said
            print(f'device: {name}, {torch.cuda.get_device_name()}', file=sys.stderr)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'unknown device {name!r}; choose cpu, cuda, cuda:0, cuda:1, ...') from error
    if devices * nodes > 1 and device.index is not None:
        raise ValueError(f'device {name!r} names a single one; for many choose --device {device.type}')
    wanted, found = max(devices, (device.index or 0) + 1), torch.cuda.device_count()
    if device.type == 'cuda' and wanted > found:
        raise ValueError(f'device {name!r} needs {wanted} GPUs, PyTorch finds {found}; choose fewer, or --device cpu')
    return name


def bank_bytes(spec: SampleSpec, count: int, out: Path) -> int:
    """About how many bytes a bank of so many samples has yet to write."""
    there = sum(file.stat().st_size for file in out.glob('*.safetensors')) if out.is_dir() else 0
    return max(0, count * spec.sample_bytes - there)


def draw(
    generator: Generator, count: int, out: Path, labels: LabelPolicy, seed: int, devices: int, nodes: int
) -> SyntheticBank | None:
    """Write a bank on one or many devices; None in processes that only help."""
    from lightning.fabric import Fabric
    from torch import distributed

    from ..datasets import write_bank

    if out.suffix == '.npz':
        raise ValueError(f'{out}: out is the folder of a bank; for an .npz file beside it add --export npz')
    fabric = None
    if devices * nodes > 1:
        fabric = Fabric(accelerator=generator.device.type, devices=devices, num_nodes=nodes)
        fabric.launch()
    helper = fabric is not None and fabric.global_rank > 0
    try:
        bank = write_bank(generator, count, out, labels=labels, seed=seed, fabric=fabric, progress=True)
    except KeyboardInterrupt:
        said = f'\ninterrupted; finished shards are in {out}, the same command continues from there'
        raise SystemExit(1 if helper else said) from None
    finally:
        if fabric is not None:  # the threads of its process group must not outlive the interpreter
            distributed.destroy_process_group()
    return None if helper else bank
