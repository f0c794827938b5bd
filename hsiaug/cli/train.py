"""``hsiaug train``."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..ablation.identity import differences
from ..records import as_record, json_ready, write_json
from ..scenes.config import SceneConfig
from .config import RANDOM, RUN_FILE, SIMULATED, SplitConfig, Trained, open_split, read_train, require_unchanged
from .data import DataConfig, given_data
from .guard import require_device, require_writable


def train(
    out: Path = Path('runs/generator'),
    scene: SceneConfig = SIMULATED,
    split: SplitConfig = RANDOM,
    generator: str = 'spectral_gan',
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    precision: str | None = None,
    device: str = 'auto',
    devices: int = 1,
    nodes: int = 1,
    **samples: Any,
) -> None:
    """Train a generator on the training part of a scene or dataset. Repeat the command to resume.

    Args:
        out: folder of the generator: config, weights, model card, run.json with the data it was trained on; losses
            (CSV) and pictures of samples in training/.
        scene: the scene; the simulated one by default.
        split: how to split the scene.
        generator: name of the generator; see hsiaug list generators.
        settings: settings of the generator, such as '{iterations: 500}'; see hsiaug list generators NAME.
        seed: seed of the split and the training.
        precision: numerical precision of the networks, for generators that support it: 32, tf32, or bf16 (Lightning's
            bf16-mixed).
        device: device to train on; auto uses a GPU if there is one.
        devices: number of processes per machine that train together, each on its own device; they share every batch.
        nodes: number of machines that train together; start the same command on each with torchrun or SLURM.
        samples: datasets instead of a scene.
    """
    from ..engine import Run, world
    from ..systems.fit import fit_generator, require_settings, require_use_of, training_data
    from ..systems.saved import TRAINING_FOLDER, is_generator_folder, require_own_folder

    data = given_data(DataConfig(**samples), scene != SIMULATED or split != RANDOM)
    device = require_device(device, devices, nodes)
    if precision is not None:
        settings = {**(settings or {}), 'precision': precision}
    require_settings(generator, settings)
    require_own_folder(out)
    scene_and_split = {'scene': dataclasses.asdict(scene), 'split': dataclasses.asdict(split)}
    on = scene_and_split if data is None else data.stated()
    note = json_ready({**on, 'generator': generator, 'settings': settings, 'seed': seed})
    if is_generator_folder(out):
        _require_same(out, note)
        print(f'{out} already holds this training, finished. Remove the folder to train again')
        return
    require_writable(out)
    opened: Any
    opened, parts = open_split(scene, split, seed) if data is None else data.parts(seed)
    require_use_of(None if data is None else data.unlabelled, generator, settings or {})
    learnt = training_data(opened, parts, generator)
    checkpoints = out / TRAINING_FOLDER
    try:
        with Run(device=device, devices=devices, nodes=nodes).launched() as mine:
            model = fit_generator(
                generator, learnt, settings, seed, str(mine), progress=True, folder=checkpoints,
                losses=checkpoints / 'losses.csv',
            )  # fmt: skip
            helper = world()[0] > 0
    except KeyboardInterrupt:
        kept = any(checkpoints.rglob('*.safetensors'))
        said = f'checkpoints are in {checkpoints}; repeat the command to resume' if kept else 'nothing was saved'
        raise SystemExit(f'\ninterrupted; {said}') from None
    if helper:  # another process of the run writes what all have learnt
        return
    model.save_pretrained(out)
    write_json(out / RUN_FILE, note if data is not None else {**note, 'content': json_ready(opened.content)})
    print(f'{generator} trained on {opened.name} (split {parts.fingerprint}): {out}')


def _require_same(out: Path, note: dict[str, Any]) -> None:
    """Refuse the folder of a generator that was trained otherwise than a note says, or on a scene that has changed."""
    if not (file := out / RUN_FILE).is_file():
        raise FileExistsError(
            f'{out} holds a generator but no {RUN_FILE} that says of which run; choose another folder'
        )
    record = read_train(file)
    there, here = (
        dataclasses.asdict(one) for one in (replace(record, content=None), as_record(Trained, note, 'this run'))
    )
    if other := list(differences(there, here)):
        said = '; '.join(other[:8])
        raise FileExistsError(f'{out} holds another generator ({said}); choose another folder, or remove it')
    if record.content is not None:
        with suppress(FileNotFoundError):  # what is gone has not changed
            require_unchanged(record.scene(), record, file)
