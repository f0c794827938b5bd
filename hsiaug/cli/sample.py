"""``hsiaug sample``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..datasets import LabelPolicy
from ..datasets.bank.export import ExportFormat
from .config import RUN_FILE, read_run, trained_on
from .guard import require_device, require_writable

if TYPE_CHECKING:
    from ..datasets import SyntheticBank
    from ..systems import Generator


def sample(
    run: Path,
    count: int = 1000,
    out: Path = Path('runs/bank'),
    labels: LabelPolicy = 'real',
    seed: int = 0,
    device: str = 'auto',
    devices: int = 1,
    nodes: int = 1,
    verify: bool = False,
    preview: bool = False,
    export: ExportFormat | None = None,
    trust_run: bool = False,
) -> None:
    """Draw samples from a trained generator into a bank, or check a bank. Repeat the command to resume.

    Args:
        run: folder of a generator (hsiaug train) to draw from; or of a finished bank to verify, preview or export,
            which needs no other option.
        count: number of samples.
        out: folder of the bank: safetensors shards and bank.json, to be opened with SyntheticBank.open.
        labels: class frequencies of the samples: real, sqrt, uniform or inverse, or weights by class name.
        seed: seed of labels and noise.
        device: device to draw on: cpu, cuda, cuda:1, ...; auto uses a GPU if there is one.
        devices: number of processes per machine that fill the bank together, each on its own device.
        nodes: number of machines that fill it together; start the same command on each with torchrun or SLURM.
        verify: read all shards and compare their checksums.
        preview: draw samples next to real ones that the generator was trained on, to <bank>_preview.png.
        export: also write the bank in another format, to <bank>.npz, <bank>_geotiff, <bank>_webdataset or
            <bank>_parquet.
        trust_run: for preview, import the dataset classes named in the folder of the run; otherwise, real samples of
            a dataset are not shown.
    """
    from ..datamodules.mixed import open_source
    from ..datasets import SyntheticBank, scene_dataset
    from ..datasets.bank.export import export_bank, require_free
    from ..report.bank import export_place, preview_bank, summary
    from ..systems import Generator

    device = require_device(device, devices, nodes)
    source = open_source(run)
    if isinstance(source, SyntheticBank):
        if not (verify or preview or export):
            raise ValueError(
                f'{run} is a bank already; add --verify, --preview or --export, or give the folder of a generator'
            )
        if out != Path('runs/bank'):
            raise ValueError(f'{run} is a bank: previews and exports are written next to it; leave out --out')
        out = source.root
    if preview or export:
        require_writable(out.absolute().parent)
    if export:  # before anything is drawn
        require_free(export_place(out, export))
    if isinstance(source, SyntheticBank):
        bank = source
    else:
        generator = cast(Generator, source)
        if count > 0:  # write_bank says what is wrong with other counts
            there = sum(file.stat().st_size for file in out.glob('*.safetensors')) if out.is_dir() else 0
            require_writable(out, max(0, count * generator.spec.sample_bytes - there))
        drawn = _draw(generator.to(device), count, out, labels, seed, devices, nodes)
        if drawn is None:  # another process continues
            return
        bank = drawn
        print(summary(bank))
    if verify:
        bank.verify(progress=True)
        print(f'{len(bank)} samples in {len(bank.shards)} shards: all checksums are correct')
    if preview:
        record = read_run(run) if (run / RUN_FILE).is_file() else None
        known = record is not None and (record.data is None or trust_run)
        real: Any = scene_dataset(*trained_on(run, trust=trust_run)) if known else None
        print(f'preview: {preview_bank(bank, real)}')
        if record is not None and not known:
            print(f'{run / RUN_FILE} names the class of the real samples, {record.name}; add --trust_run to show them')
    if export:
        print(f'{export}: {export_bank(bank, export_place(bank.root, export), export, progress=True)}')


def _draw(
    generator: Generator, count: int, out: Path, labels: LabelPolicy, seed: int, devices: int, nodes: int
) -> SyntheticBank | None:
    """Write a bank on one or many devices; None in processes that only help."""
    from lightning.fabric import Fabric
    from torch import distributed

    from ..datasets import write_bank

    if out.suffix == '.npz':
        raise ValueError(f'{out}: out is the folder of a bank; for an .npz file next to it add --export npz')
    fabric = None
    if devices * nodes > 1:
        fabric = Fabric(accelerator=generator.device.type, devices=devices, num_nodes=nodes)
        fabric.launch()
    helper = fabric is not None and fabric.global_rank > 0
    try:
        bank = write_bank(generator, count, out, labels=labels, seed=seed, fabric=fabric, progress=True)
    except KeyboardInterrupt:
        said = f'\ninterrupted; finished shards are in {out}; repeat the command to continue'
        raise SystemExit(1 if helper else said) from None
    finally:
        if fabric is not None:  # the threads of its process group must not outlive the interpreter
            distributed.destroy_process_group()
    return None if helper else bank
