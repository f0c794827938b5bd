"""Several named sources in a Lightning training: counts and log lines of each, kept in its checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from toy_modules import ToyModule
from toys import Toy

from hsiaug.datamodules import MixedDataModule
from hsiaug.datasets import write_bank


class Task(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.tags = torch.nn.Conv2d(5, 3, 1), torch.zeros(3, dtype=torch.int64)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self.tags += torch.bincount(batch['source'], minlength=3)
        return torch.nn.functional.cross_entropy(self.net(batch['image']), batch['mask'].squeeze(1).long())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize('way', ['dataset', 'batch'])
def test_counts_and_log_lines_of_each_source(way: Any, tmp_path: Path) -> None:
    write_bank(Toy('segmentation', 40, seed=1), None, tmp_path / 'bank')
    sources: Any = {'gan': tmp_path / 'bank', 'paste': Toy('segmentation', 40, seed=2)}
    module, task = MixedDataModule(ToyModule(), sources, {'gan': 0.5, 'paste': 1.0}, way=way), Task()
    Trainer(
        max_epochs=2, accelerator='cpu', logger=CSVLogger(tmp_path, name='', version=''), enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1, limit_val_batches=0,
    ).fit(task, module)  # fmt: skip
    assert task.tags.tolist() == [48, 24, 48]  # 60 an epoch: torchgeo drops an incomplete last batch
    assert module.source_seen == {'gan': 24, 'paste': 48}
    assert (module.real_seen, module.synthetic_seen) == (48, 72)
    header, *lines = (tmp_path / 'metrics.csv').read_text().splitlines()
    last = dict(zip(header.split(','), lines[-1].split(','), strict=True))
    assert (last['mix/gan_seen'], last['mix/paste_seen'], last['mix/gan_ratio']) == ('24.0', '48.0', '0.5')
    again = MixedDataModule(ToyModule(), sources, {'gan': 0.5, 'paste': 1.0}, way=way)
    again.load_state_dict(module.state_dict())
    assert again.source_seen == module.source_seen
