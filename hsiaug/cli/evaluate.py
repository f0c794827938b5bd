"""``hsiaug evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..datasets.bank.reader import BANK_FILE, WRITING_FILE
from ..scenes.config import SceneConfig
from ..scenes.patches import PARTS
from ..settings import check_value
from .config import SplitConfig, real_data, trained_on
from .data import DataConfig
from .guard import require_device, require_writable


def evaluate(
    run: Path,
    per_class: int = 200,
    count: int | None = None,
    device: str = 'auto',
    real: str | SceneConfig | None = None,
    split: SplitConfig | None = None,
    seed: int | None = None,
    out: Path | None = None,
    study: Path | None = None,
    no_gates: bool = False,
    trust_run: bool = False,
    **samples: Any,
) -> None:
    """Measure how close the samples of a generator or bank are to real ones.

    For a generator, figures, tables and a model card are written to its folder. For a bank with --real, one HTML page
    shows samples, spectra, what gates reject and why, memorised samples, class balance, fidelity and coverage.

    Args:
        run: folder written by ``hsiaug train``, or folder of a bank.
        per_class: spectra per class; for a bank, the largest number.
        count: number of pairs or images to draw from a generator, 500 if null; or largest number of samples of a bank
            to inspect, 5000 spectra or 500 images if null.
        device: device on which a generator samples; auto uses a GPU if there is one.
        real: for a bank, what to compare it with: a scene; or the folder of the generator written by ``hsiaug train``,
            or the config file of that command, either of which gives scene, split and seed.
        split: how to split the scene; overrides ``real``. Random if neither is given.
        seed: seed of the split; overrides ``real``. 0 if neither is given.
        out: for a bank, file of the page; <bank>_evaluation.html if null.
        study: for a bank, run folder of a study, or file of a ratio search, whose ratio curve the page shows.
        no_gates: for a bank, skip the gates, which take longest.
        trust_run: import the dataset classes named in the folder of the run; no folder is trusted by default.
        samples: datasets that the run was trained on; they override what its folder names.
    """
    from ..datamodules.mixed import open_source
    from ..datasets import SyntheticBank, scene_dataset
    from ..report.evaluation import write_evaluation
    from ..systems import Generator
    from ..tasks import task_of

    check_value('evaluate', 'per_class', per_class, int)
    if count is not None:
        check_value('evaluate', 'count', count, int)
    given = DataConfig(**samples)
    bank = open_source(run) if (run / BANK_FILE).exists() or (run / WRITING_FILE).exists() else None
    if isinstance(bank, SyntheticBank):
        _evaluate_bank(
            bank, real_data(real, split, seed, run, given, trust_run), out, count, per_class, not no_gates, study
        )
        return
    if real is not None or study is not None or out is not None or no_gates:
        raise ValueError(
            f'{run} is not a bank; real, out, study and no_gates are for banks: draw one with hsiaug sample {run}'
        )
    device = require_device(device)
    generator = Generator.from_pretrained(run, device)
    require_writable(run)
    opened, parts = trained_on(run, given, trust_run)
    train, test = (scene_dataset(opened, parts, part) for part in PARTS[::2])
    found = task_of(generator).evaluate(generator, train, test, count or 500, per_class)
    print(write_evaluation(found, generator.card(), run))
    print(f'report: {run / "README.md"}')


def _evaluate_bank(
    bank: Any, real: tuple[Any, Any], out: Path | None, count: int | None, per_class: int, gates: bool,
    study: Path | None,
) -> None:  # fmt: skip
    from ..quality.inspection import inspect_bank
    from ..report.page import page_file, write_page
    from ..report.page_ratio import ratio_section

    if out is not None and out.is_dir():
        raise IsADirectoryError(f'{out} is a folder; give the file of the page')
    require_writable((out or bank.root).absolute().parent)
    page_file(bank, out)
    curve = None if study is None else ratio_section(study)  # mistakes first
    path, overview = write_page(inspect_bank(bank, *real, count, per_class, gates, progress=True), out, curve)
    print('\n'.join(f'{name}: {value}' for name, value in overview))
    print(f'page: {path}')
