"""Pictures of what a generator makes while it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..engine import world
from .base import TrainingData

IMAGES, SPECTRA = 6, 500
"""Samples of either side in one picture."""


class Pictures:
    """Draws real samples and synthetic ones of the generator as it stands, every so many steps.

    They are ``samples_<step>.png`` in ``folder``, none without one; the data that it learns from are in memory or read
    from a dataset.
    """

    def __init__(self, data: TrainingData, folder: Path | None, every: int = 1000) -> None:
        self.data, self.folder, self.every = data, None if folder is None else Path(folder), every

    def __call__(self, training: Any) -> None:
        """Draw one where it is time to, of the ``result()`` of a training as it stands."""
        if self.folder is None or training.step % self.every or world()[0]:
            return
        from ..datasets.preview import preview_grid

        spec, source = self.data.spec, self.data.source
        count = SPECTRA if spec.kind == 'spectrum' else IMAGES
        x, y = self.data.x[:count], self.data.y[:count]
        if source is not None:
            x, y = source.read(np.arange(min(count, len(source))))
        real: dict[str, Any] = {'image': x, **({spec.target_key: y} if len(y) else {})}
        synthetic = {key: value.cpu() for key, value in training.result().sample(count, seed=training.seed).items()}
        figure = preview_grid(real, synthetic, spec, suptitle=f'{training.step} of {training.steps} steps')
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f'samples_{training.step}.png', dpi=100)
