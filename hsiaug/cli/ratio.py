"""``hsiaug ratio``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..datasets import LabelPolicy
from ..progress import progress_bar
from ..records import read_json, write_json
from ..tasks import task_of_split
from .config import RUN_FILE, open_noted, read_run
from .data import DataConfig
from .guard import require_device, require_writable


def ratio(
    run: Path,
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0),
    labels: LabelPolicy = 'real',
    gated: bool = False,
    folds: int = 3,
    block: int = 8,
    trials: int = 6,
    k: float = 1.0,
    share: float = 1.0,
    model: dict[str, Any] | None = None,
    device: str = 'auto',
    trust_run: bool = False,
    **samples: Any,
) -> None:
    """Choose a ratio on folds of the training area. Repeat the command to resume.

    For each fold, the generator is retrained on the others. The answer is 0 (do not mix) unless another ratio is
    clearly better. It goes to <run>/ratio.json, which ``hsiaug evaluate BANK --real RUN --study RUN/ratio.json`` draws.

    Args:
        run: folder written by ``hsiaug train``.
        ratios: synthetic samples per real sample; 0 is always among them.
        labels: class frequencies of the synthetic samples: real, sqrt, uniform or inverse; or weights by class name.
        gated: apply all gates to the generator's samples, and leave out classes of which hardly any sample passes.
        folds: number of folds.
        block: side of the blocks that are assigned to folds, in pixels, or for patches in patches; smaller if the
            scene is small.
        trials: number of trainings at the best ratio; if more than folds, the folds are redrawn and used again.
        k: number of standard errors by which the best ratio must beat 0.
        share: length of a trial, as a share of the steps of a full training.
        model: settings of the downstream network and its training, such as {steps: 200}.
        device: device to train on; auto uses a GPU if there is one.
        trust_run: import the dataset classes named in the folder of the run; no folder is trusted by default.
        samples: datasets that the run was trained on; they override what its folder names.
    """
    from ..quality import Candidate, FoldTrial, RatioSearch, Recorded, all_gates

    device = require_device(device)
    record, file = read_run(run), run / RUN_FILE
    if 'generator' not in read_json(file, 'a note of hsiaug train'):
        raise ValueError(f'{file} was written by an older version and does not name the generator; train again')
    require_writable(run)
    scene, split = open_noted(record, DataConfig(**samples), trust_run, file)
    task = task_of_split(split, record.scene.dates)
    config = task.configure(model, 'model')
    search = RatioSearch(tuple(ratios), (0.05,) if gated else (), folds, trials, min(2, trials), k, record.seed)
    measured = FoldTrial(
        scene, split, record.generator, config, record.settings, labels, folds=folds, block=block, share=share,
        device=device, gate=all_gates if gated else None,
    )  # fmt: skip
    trials_file = run / 'ratio_trials.jsonl'
    try:
        recorded = Recorded(measured, trials_file)
        with progress_bar(True, desc='ratio', unit=' trainings') as advance:

            def trained(candidate: Candidate, fold: int, seed: int) -> float:
                score = measured(candidate, fold, seed)
                advance(1)
                return score

            recorded.trial = trained
            choice = search(recorded)
    except KeyboardInterrupt:
        raise SystemExit(f'\ninterrupted; finished trials are in {trials_file}; repeat the command to resume') from None
    place, chosen = run / 'ratio.json', choice.to_dict()
    if place.is_file() and (before := read_json(place, 'the choice of a ratio')) != chosen:
        print(f'the choice of a search with other settings is replaced: {before.get("chosen")}')
    write_json(place, chosen)
    print(choice)
    print(f'choice: {place}')
