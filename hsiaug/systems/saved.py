"""The folder of a generator: written whole, found, checked before anything in it is believed, and read."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from .. import __version__
from ..records import as_record, checksum, in_markdown, read_json
from ..samples import Provenance, SampleSpec
from ..settings import leaves

M = TypeVar('M', bound=nn.Module)

CONFIG_FILE = 'config.json'
WEIGHTS_FILE = 'model.safetensors'
CARD_FILE = 'README.md'
TRAINING_FOLDER = 'training'
"""Checkpoints, losses and pictures of a long training, in the folder that the generator will be saved to."""

HUB = re.compile(r'hf:/{1,2}([\w.-]+/[\w.-]+)/?')  # a pathlib.Path keeps one slash of two


LARGEST_SETTING = 1_000_000
"""Settings that are whole numbers, and the number of bands, are at most this large, or as large as weights are many."""


class CheckpointError(ValueError):
    """A folder that does not hold a generator that this version can load."""


class GeneratorNotFoundError(CheckpointError, FileNotFoundError):
    """No folder of that name, or no such repository."""


@dataclass(frozen=True)
class SavedConfig:
    """What ``config.json`` says: what the generator is made with, where it comes from, and the SHA-256 of its weights.

    Older versions did not note the last.
    """

    type: str
    spec: SampleSpec
    settings: dict[str, Any]
    provenance: Provenance | None
    weights: str | None = None


def write_folder(target: Path, config: SavedConfig, module: nn.Module) -> Path:
    """Write a config, the weights of a module and a model card, see :meth:`.base.Generator.save_pretrained`."""
    require_own_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f'.{target.name}-', dir=target.parent))
    try:
        # clone: members of an ensemble may share one training set, and safetensors stores no shared memory
        state = {k: v.detach().cpu().clone().contiguous() for k, v in module.state_dict().items()}
        save_file(state, staging / WEIGHTS_FILE)
        said = {
            'type': config.type,
            'spec': config.spec.to_dict(),
            'settings': config.settings,
            'provenance': config.provenance.to_dict() if config.provenance else None,
            'weights': checksum(staging / WEIGHTS_FILE),
        }
        try:
            (staging / CONFIG_FILE).write_text(json.dumps(said, indent=2, default=methodcaller('tolist')))  # of arrays
        except (TypeError, AttributeError) as error:
            raise TypeError(f'{config.type}: settings that JSON cannot hold cannot be saved: {error}') from error
        (staging / CARD_FILE).write_text(card_text(config))
        if not target.exists():
            os.replace(staging, target)
            target.chmod(0o755)
        else:  # over another; the config goes first: it knows its weights, and no others
            for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE):
                os.replace(staging / name, target / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def read_weights(folder: Path, config: SavedConfig, make: Callable[[], M]) -> M:
    """The module that the config describes and ``make`` makes, with the weights in a generator's folder."""
    file = folder / WEIGHTS_FILE
    require_fit(make, config, file)
    require_weights(file, config.weights)
    # Saved in half precision, a generator still computes in the precision that it was written for.
    state = {k: v.float() if v.is_floating_point() and v.itemsize < 4 else v for k, v in load_file(file).items()}
    module = make()
    load_state(module, state, config, file)
    return module


def card_text(config: SavedConfig) -> str:
    """A short model card in Markdown."""
    spec, provenance = config.spec, config.provenance
    lines = [f'# {config.type}', '', f'A hyperspectral sample generator of hsiaug {__version__}.', '']
    lines += [f'- kind: {spec.kind}, {spec.bands} bands, unit {spec.unit or "unknown"}']
    lines += [f'- classes: {", ".join(map(in_markdown, spec.classes))}']
    if provenance is not None:
        lines += [f'- trained on split `{provenance.split}`, seed {provenance.seed}']
        lines += [f'- setting: `{json.dumps(dict(provenance.training), sort_keys=True)}`']
    return '\n'.join(lines) + '\n'


def find_folder(name: str | os.PathLike[str]) -> Path:
    """The folder of that name; of ``hf://owner/name``, the repository's files, downloaded.

    Raises:
        GeneratorNotFoundError: if there is none. The hub is not asked for what does not begin with ``hf://``.
    """
    text = os.fspath(name)
    if (repo := HUB.fullmatch(text)) is None:
        if not (folder := Path(text).expanduser()).is_dir():
            raise GeneratorNotFoundError(
                f'no folder {text}; give the folder that hsiaug train wrote, or hf://owner/name for a generator on the '
                'Hugging Face hub'
            )
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo[1], allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]))
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such repository, no name of one
        said = ' '.join(str(error).split())
        raise GeneratorNotFoundError(f'hf://{repo[1]} could not be had from the Hugging Face hub: {said}') from error


def is_generator_folder(folder: Path) -> bool:
    """Whether a folder's config is that of a generator, of this version or another."""
    try:
        found = read_json(folder / CONFIG_FILE, 'a generator config')
    except (OSError, ValueError):
        return False
    return {'type', 'spec', 'settings'} <= set(found)


def require_own_folder(target: Path) -> None:
    """Refuse a folder that a generator can't be saved to because it holds something else.

    Raises:
        FileExistsError: if it does; NotADirectoryError if it is a file.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise NotADirectoryError(f'{target} is a file; give a folder for the generator')
    foreign = {path.name for path in target.iterdir()} - {TRAINING_FOLDER}
    if foreign and not is_generator_folder(target):
        raise FileExistsError(f'{target} exists and holds no generator; choose another folder')


def read_config(folder: Path) -> SavedConfig:
    """The config in a generator's folder."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            names = sorted(p.name for p in folder.iterdir())[:8]
            raise CheckpointError(f'{folder} holds no {name} (found {names}); was it written by save_pretrained?')
    file = folder / CONFIG_FILE
    found = read_json(file, 'a generator config of hsiaug', CheckpointError)
    return as_record(SavedConfig, found, f'{file} is not a generator config of hsiaug', CheckpointError)


def require_fit(make: Callable[[], nn.Module], config: SavedConfig, file: Path) -> None:
    """Refuse weights that are not those of a generator as its config describes it, before either takes memory.

    The generator is made without memory, and the shapes that the file's header lists are loaded into it.
    """
    try:
        with safe_open(file, 'pt') as weights:
            shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f'{file} is truncated or not a safetensors file: {error}') from error
    state = {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}
    values = sum(tensor.numel() for tensor in state.values())
    # Widths, depths and lengths set the sizes of lists before there are weights.
    numbers = [abs(value) for _, value in leaves([config.settings, config.spec.bands]) if isinstance(value, int)]
    if (largest := max(numbers)) > LARGEST_SETTING + values:
        raise CheckpointError(f'{file} does not fit its config, of whose numbers one is {largest}')
    try:
        with torch.device('meta'), _parts_at_most(1000 + 20 * len(state)):
            load_state(make(), state, config, file)
    except CheckpointError as error:
        # One that looks at its tensors while it is made can't be made without memory; it is made with.
        if 'meta tensor' not in str(error):
            raise


def load_state(module: nn.Module, state: dict[str, Tensor], config: SavedConfig, file: Path) -> None:
    """Load all weights, and no others."""
    try:
        module.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f'{file} does not fit a {config.type!r} with its config: {error}') from error


def require_weights(file: Path, expected: str | None) -> None:
    """Refuse weights that the config was not written with; configs of older versions do not say."""
    if expected is not None and (found := checksum(file)) != expected:
        raise CheckpointError(
            f'{file} has SHA-256 {found[:16]}…, {CONFIG_FILE} next to it was written with {expected[:16]}…: saving was '
            'interrupted, or a file was damaged or exchanged; train or save the generator again'
        )


@contextmanager
def _parts_at_most(most: int) -> Iterator[None]:
    """Stop making a module that registers more parameters, buffers and modules than its weights can fill."""
    made = 0

    def count(*_: Any) -> None:
        nonlocal made
        made += 1
        if made > most:
            raise CheckpointError(f'its config describes more than {most} parts, far more than its weights can fill')

    handles = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
        register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
