"""Lightning's trainer with nothing around it, and toys as a datamodule."""

from __future__ import annotations

from typing import Any, Literal

import kornia.augmentation as K
import torch
from lightning.pytorch import Trainer
from torchgeo.datamodules import NonGeoDataModule
from toys import BANDS, Toy

from hsiaug.transforms import BitemporalAugmentation


class Toys(NonGeoDataModule):
    """Toys with masks, enlarged to the sides of 32 that torchgeo's networks want."""

    def __init__(self, kind: Literal['segmentation', 'change'], batch_size: int = 8) -> None:
        super().__init__(Toy, batch_size=batch_size, num_workers=0)
        self.kind, self.mean, self.std = kind, torch.zeros(BANDS), torch.ones(BANDS)
        if kind == 'change':
            self.aug: Any = BitemporalAugmentation(K.Normalize(self.mean, self.std))

    def setup(self, stage: str = 'fit') -> None:
        sets = [Toy(self.kind, n, seed) for seed, n in enumerate((16, 8, 8))]
        for one in sets:
            one.data = {key: x.repeat_interleave(4, -1).repeat_interleave(4, -2) for key, x in one.data.items()}
        self.train_dataset, self.val_dataset, self.test_dataset = sets


def enlarged(kind: Literal['segmentation', 'change']) -> Toy:
    """The training samples by themselves."""
    module = Toys(kind)
    module.setup()
    return module.train_dataset  # type: ignore[return-value]


def trainer(max_epochs: int, **options: Any) -> Trainer:
    plain: dict[str, Any] = {
        'accelerator': 'cpu', 'logger': False, 'enable_checkpointing': False, 'enable_progress_bar': False,
        'enable_model_summary': False,
    }  # fmt: skip
    return Trainer(max_epochs=max_epochs, **{**plain, **options})
