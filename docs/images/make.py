"""Draw the figures of the gallery and run the notebooks: python docs/images/make.py (minutes on one core)."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import hsiaug
from hsiaug.datasets import scene_dataset
from hsiaug.datasets.preview import preview_grid
from hsiaug.scenes import BitemporalScene, make_splitter
from hsiaug.systems.fit import fit_generator, training_data

HERE = Path(__file__).parent
PATCHES = {'size': 16, 'stride': 8}
SHORT = {'vae_iterations': 500, 'diffusion_iterations': 1000, 'vae_channels': 8, 'unet_channels': (16, 32)}


def spectra(kind: str, settings: dict[str, Any]) -> Figure:
    """Test spectra of six classes, and synthetic ones."""
    scene = hsiaug.SimulatedScene(96, 96, classes=6)
    split = make_splitter('blocks', per_class=50, on_rare='drop')(scene, 0)
    generator = fit_generator(kind, training_data(scene, split, kind), settings)
    image, label = scene_dataset(scene, split, 'test').tensors()
    return preview_grid({'image': image, 'label': label}, generator.sample(1200, seed=0), generator.spec)


def images(kind: str, settings: dict[str, Any], strategy: str = 'patches') -> Figure:
    """Training patches and synthetic ones."""
    dates = 2 if strategy == 'change_patches' else 1
    scene: Any = hsiaug.SimulatedScene(128, 128, np.linspace(400, 2500, 30), classes=5, patch=12, dates=dates)
    if strategy == 'change_patches':
        scene = BitemporalScene.from_simulated(scene)
    split = make_splitter(strategy, **PATCHES)(scene, 0)
    generator = fit_generator(kind, training_data(scene, split, kind), settings)
    train = scene_dataset(scene, split, 'train')
    rows = torch.linspace(0, len(train) - 1, 6).long().tolist()
    real = {key: torch.stack([train[row][key] for row in rows]) for key in ('image', generator.spec.target_key)}
    return preview_grid(real, generator.sample(6, real.get('label'), seed=1), generator.spec)


def notebook(page: str) -> Any:
    """Run a notebook, write what its blocks print below them, and give its ``figure`` if it draws one."""
    sys.path.insert(0, str(HERE.parents[1] / 'tests'))
    from snippets import run_example

    path = HERE.parent / 'notebooks' / page
    space: dict[str, Any] = {'__name__': '__main__'}

    def with_output(found: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            run_example(found[2], page, space)
        text = printed.getvalue().strip()
        return found[1] + (f'\n```text\n{text}\n```\n' if text else '')

    blocks = re.compile(r'(^```python\n(.+?)^```\n)(?:\n```text\n.+?^```\n)?', re.M | re.DOTALL)
    with contextlib.chdir(tempfile.mkdtemp()):
        text = blocks.sub(with_output, path.read_text())
    path.write_text(text)
    return space.get('figure')


FIGURES: dict[str, Callable[[], Figure]] = {
    'notebook_spectra': lambda: notebook('own_scene.md'),
    'notebook_pairs': lambda: notebook('own_dataset.md'),
    'gallery_variability': lambda: spectra('variability', {}),
    'gallery_spectral_gan': lambda: spectra('spectral_gan', {'iterations': 1000}),
    'gallery_region_paste': lambda: images('region_paste', {}),
    'gallery_two_stream': lambda: images('two_stream_diffusion', SHORT),
    'gallery_change': lambda: images('region_paste', {}, 'change_patches'),
    'gallery_patch_gan': lambda: images('patch_gan', {'iterations': 1000}, 'labelled_patches'),
}


if __name__ == '__main__':
    torch.set_num_threads(1)
    for name in sys.argv[1:] or FIGURES:
        FIGURES[name]().savefig(HERE / f'{name}.png', dpi=80)
        print(name)
    if not sys.argv[1:]:
        notebook('bank_page.md')
