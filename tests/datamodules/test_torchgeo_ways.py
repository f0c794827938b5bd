"""torchgeo's own entry points, with nothing changed but the datamodule."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torchgeo.main import main as torchgeo
from torchgeo.trainers import SemanticSegmentationTask
from toy_modules import ToyGeoModule, write_rasters
from toys import BANDS, SIZE, Toy, aligned

from hsiaug.datamodules import MixedDataModule
from hsiaug.datasets import write_bank

CONFIG = Path(__file__).parents[2] / 'configs' / 'torchgeo_mixed.yaml'


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    write_bank(Toy('segmentation', 40, seed=9), None, tmp_path / 'bank')
    return tmp_path / 'bank'


def test_torchgeo_fit_with_a_config(bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It sets options of GDAL for good, with which other tests cannot write ENVI files.
    monkeypatch.setattr('torchgeo.main.os', SimpleNamespace(environ={}))
    config = yaml.safe_load(CONFIG.read_text())
    assert config['data']['class_path'] == 'hsiaug.datamodules.MixedDataModule'
    # The user's own data in place of the example's, which would have to be downloaded.
    config['data']['init_args'] |= {
        'inner': {'class_path': 'toy_modules.ToyModule', 'init_args': {'batch_size': 4}},
        'source': str(bank),
    }
    config['model']['init_args'] |= {'in_channels': BANDS, 'num_classes': 3, 'model': 'fcn'}
    config['model']['init_args'].pop('backbone')
    config['trainer'] = {
        'max_epochs': 1, 'accelerator': 'cpu', 'enable_progress_bar': False, 'enable_checkpointing': False,
        'log_every_n_steps': 1, 'default_root_dir': str(tmp_path),
        'logger': {'class_path': 'CSVLogger', 'init_args': {'save_dir': str(tmp_path), 'name': '', 'version': ''}},
    }  # fmt: skip
    (tmp_path / 'config.yaml').write_text(yaml.safe_dump(config))
    torchgeo(['fit', '--config', str(tmp_path / 'config.yaml')])
    log = (tmp_path / 'metrics.csv').read_text()
    synthetic = round(24 * config['data']['init_args']['ratio'])
    assert 'mix/synthetic_seen' in log
    assert str(float(synthetic)) in log


def test_a_geo_module_mixes_batches(tmp_path: Path, bank: Path) -> None:
    write_rasters(tmp_path)
    module = MixedDataModule(ToyGeoModule(str(tmp_path)), bank, 0.5)
    assert module.way == 'batch'
    seen: list[dict[str, Any]] = []

    class Task(SemanticSegmentationTask):
        def training_step(self, batch: Any, *args: Any) -> Any:
            seen.append(batch)
            return super().training_step(batch, *args)

    task = Task(model='fcn', in_channels=BANDS, task='multiclass', num_classes=3, loss='ce', num_filters=4)
    Trainer(
        max_epochs=1, accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(task, module)  # fmt: skip
    assert (module.real_seen, module.synthetic_seen) == (12, 6)
    for batch in seen:
        assert batch['image'].shape[1:] == (BANDS, SIZE, SIZE)
        assert torch.isfinite(batch['image']).all()
        for key in {'bounds', 'transform'} & set(batch):  # torchgeo >= 0.9 leaves them to the task
            assert torch.equal(batch[key].isnan().flatten(1).any(1), batch['synthetic'])
        assert aligned(batch)  # mean 0 and std 1: normalisation leaves the rule between image and mask
