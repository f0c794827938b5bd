"""``hsiaug ratio``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..datasets import LabelPolicy
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
    """Choose a ratio on folds of the training area. Run it again to resume it.

    For each fold the generator is trained anew on the others. Nothing is mixed in (ratio 0) unless that is better by
    enough. The choice goes to <run>/ratio.json, which ``hsiaug evaluate BANK --real RUN --study RUN/ratio.json`` draws.

    Args:
        run: folder that ``hsiaug train`` wrote.
        ratios: synthetic samples per real sample; 0 is always among them.
        labels: classes of the synthetic samples: real, sqrt, uniform or inverse frequencies, or weights by class name.
        gated: put all gates in front of the generator, and leave out classes of which hardly anything passes.
        folds: that the training area is dealt to.
        block: side, in pixels or of patches in patches, of the blocks that go to a fold as a whole; smaller ones where
            a scene is small.
        trials: trainings of the best ratio; more than folds repeat the folds in other places.
        k: standard errors that the best ratio must be better than 0 by.
        share: share of the steps of a plain training.
        model: settings of the downstream network and its training, such as {steps: 200}.
        device: where to train; auto takes a GPU where there is one.
        trust_run: import the classes of datasets that the run's note names; no folder is trusted by itself.
        samples: datasets that a run was trained on, other than its note says.
    """
    from ..quality import FoldTrial, RatioSearch, Recorded, all_gates

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
        choice = search(Recorded(measured, trials_file))
    except KeyboardInterrupt:
        raise SystemExit(f'\ninterrupted; finished trials are in {trials_file}, the same command resumes it') from None
    place, chosen = run / 'ratio.json', choice.to_dict()
    if place.is_file() and (before := read_json(place, 'the choice of a ratio')) != chosen:
        print(f'the choice of a search with other settings is replaced: {before.get("chosen")}')
    write_json(place, chosen)
    print(choice)
    print(f'choice: {place}')
