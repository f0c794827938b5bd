"""What the README says, run as it stands there."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from real_pairs import write_oscd
from torch import nn
from torch.utils.data import DataLoader
from torchgeo.datasets import OSCD
from toys import BANDS, Toy, aligned

from hsiaug import SimulatedScene, SyntheticBank, fit_generator, write_bank
from hsiaug.datasets import IGNORE
from hsiaug.scenes import PatchSplitter
from hsiaug.trainers import training_data

README = (Path(__file__).parents[1] / 'README.md').read_text()
EXAMPLES = dict(re.findall(r'```python ?(\w*)\n(.+?)```', README, flags=re.DOTALL))


def run(name: str, **given: Any) -> dict[str, Any]:
    """Run an example with the names that it takes from the reader's own program."""
    space: dict[str, Any] = dict(given)
    exec(compile(EXAMPLES[name], f'README.md, example {name!r}', 'exec'), space)
    return space


@pytest.fixture(scope='module')
def bank(tmp_path_factory: pytest.TempPathFactory) -> SyntheticBank:
    return write_bank(Toy('segmentation', 40, seed=1), None, tmp_path_factory.mktemp('bank') / 'bank')


@pytest.fixture
def real() -> Toy:
    return Toy('segmentation', 24)


def test_first_two_commands() -> None:
    commands = re.findall(r'<!-- ci: \w+ -->\n```\n(.+)\n```', README)
    assert commands == ['pip install . && hsiaug demo', "pip install '.[test]' && pytest"]


def test_links_into_the_repository_exist() -> None:
    root = Path(__file__).parents[1]
    for target in re.findall(r'\]\((?!http|#)([^)#]+)\)', README):
        assert (root / target).exists(), target
    headings = {re.sub(r'[^\w -]', '', h).lower().replace(' ', '-') for h in re.findall(r'^#+ (.+)$', README, re.M)}
    assert set(re.findall(r'\]\(#([^)]+)\)', README)) <= headings


def test_every_example_is_run_here() -> None:
    names = (
        'scene', 'sources', 'bank', 'loader', 'batch', 'kornia', 'albumentations', 'datamodule', 'smp', 'augment',
        'gates', 'ratio',
    )  # fmt: skip
    assert set(EXAMPLES) == {'', *names}


def test_first_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for split, sizes in (('train', {'a': (64, 70), 'b': (66, 40)}), ('test', {'c': (40, 33)})):
        write_oscd(tmp_path / 'data' / 'oscd', sizes, split)
    write_oscd(tmp_path / 'more', {'d': (32, 64)})
    settings = {
        'image_latents': 2, 'mask_latents': 2, 'vae_channels': 4, 'unet_channels': (8, 16), 'sampling_steps': 1,
        'vae_iterations': 2, 'diffusion_iterations': 2, 'batch_size': 2, 'vae_batch_size': 2, 'augment': False,
    }  # fmt: skip
    with pytest.warns(UserWarning, match='only 6 training patches'):
        space = run('', more_pairs=OSCD(str(tmp_path / 'more')), settings=settings)
    assert len(space['mixed']) == 6 + 3
    assert space['batch']['image'].shape == (9, 2, 13, 32, 32)
    assert space['generator'].provenance.samples.count == 2 * (6 + 2)  # two dates of each


def test_example_of_a_scene_and_its_bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = run('scene')
    real = len(space['real'])
    assert len(space['mixed']) == real + round(0.5 * real)
    assert space['batch']['image'].shape[1] == 100
    monkeypatch.chdir(tmp_path)
    bank = run('bank', generator=space['generator'])['bank']
    assert len(bank) == 10_000
    assert bank.class_counts is not None
    rarest = space['generator'].class_prior.argmin()
    assert bank.class_counts.argmax() == int(rarest)


def test_gates() -> None:
    space = run('gates', **{name: value for name, value in run('scene').items() if name != '__builtins__'})
    batch = space['mixed'].batch(range(len(space['mixed'])))
    synthetic = batch['image'][batch['synthetic']]
    assert len(synthetic) == round(0.5 * len(space['real']))
    report = space['gated'].report.to_dict()
    assert len(synthetic) <= report['kept'] <= report['samples']
    assert sum(report['rejected'].values()) >= report['samples'] - report['kept']


def test_choosing_a_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    space = run('ratio', **{name: value for name, value in run('scene').items() if name != '__builtins__'})
    choice = space['choice']
    assert choice.ratio in (0.0, 0.5, 1.0, 2.0)
    assert str(choice) in capsys.readouterr().out
    assert choice.cost == pytest.approx(choice.trainings / 4)
    assert len(space['mixed']) == len(space['real']) + round(choice.ratio * len(space['real']))


def test_altering_samples() -> None:
    scene = SimulatedScene(112, 112, wavelengths=np.arange(450, 850, 50.0), classes=4, seed=3)
    split = PatchSplitter(size=16, stride=8)(scene, 0)
    data = training_data(scene, split)
    flips = fit_generator('patch_augment', data, {'kind': 'flips'})
    before = {'image': data.x[:6], 'mask': data.y[:6]}
    space = run('augment', data=data, batch=before, generator=flips)
    altered = (space['batch']['image'] != before['image']).flatten(1).any(dim=1)
    assert int(altered.sum()) == 2
    image, mask = data.x[:6], data.y[:6, None].float()
    assert space['augment']({'image': image, 'mask': mask})['image'].shape == image.shape
    out = space['compose'](image=image[0].permute(1, 2, 0).numpy(), mask=data.y[0].numpy())
    assert (out['image'].shape, out['mask'].shape) == ((16, 16, 8), (16, 16))
    sample = space['finer'].sample(3, seed=0)
    assert not (sample['image'] == flips.sample(3, seed=0)['image']).flatten(1).all(dim=1).any()


def test_sources(real: Toy, bank: SyntheticBank) -> None:
    mixed = run('sources', real=real, bank=bank, pasted=Toy('segmentation', 40, seed=2))['mixed']
    assert mixed.source_names == ('real', 'gan', 'paste')
    assert np.bincount(mixed.source_numbers()).tolist() == [24, 12, 24]


def test_loader(real: Toy, bank: SyntheticBank) -> None:
    batches = list(run('loader', real=real, bank=bank)['loader'])
    assert [len(batch['image']) for batch in batches] == [32, 4]
    assert 10 <= int(batches[0]['synthetic'].sum()) <= 11
    assert sum(int(batch['synthetic'].sum()) for batch in batches) == 12
    assert all(aligned(batch) for batch in batches)


def test_batches(real: Toy, bank: SyntheticBank) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    loader = DataLoader(real, batch_size=8, shuffle=True)
    space = run('batch', bank=bank, loader=loader, epochs=2, train=lambda i, m: seen.append({'image': i, 'mask': m}))
    assert (space['mix'].real_seen, space['mix'].synthetic_seen) == (24, 24)
    assert all(aligned(batch) for batch in seen)


def test_kornia(real: Toy, bank: SyntheticBank) -> None:
    torch.manual_seed(0)
    image, mask = real.data['image'], real.data['mask'].float()[:, None]
    batch = run('kornia', bank=bank, image=image, mask=mask)['batch']
    fresh = [
        not any(torch.equal(row, torch.flip(r, (-1,))) or torch.equal(row, r) for r in image) for row in batch['image']
    ]
    assert 2 <= sum(fresh) <= 14
    assert aligned({'image': batch['image'], 'mask': batch['mask'][:, 0]})


def test_albumentations(real: Toy, bank: SyntheticBank) -> None:
    torch.manual_seed(0)
    sample = real[0]
    image, mask = sample['image'].permute(1, 2, 0).numpy(), sample['mask'].numpy()
    augment = run('albumentations', bank=bank, image=image, mask=mask)['augment']
    outs = [augment(image=image, mask=mask) for _ in range(20)]
    for out in outs:
        assert aligned(
            {'image': torch.from_numpy(out['image'].copy()).permute(2, 0, 1), 'mask': torch.tensor(out['mask'])}
        )
    assert 2 <= len({out['image'].sum() for out in outs}) - 1 <= 14


class Inner(LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(Toy('segmentation', 24), 8, shuffle=True)


class Task(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Conv2d(BANDS, 3, 1)

    def training_step(self, batch: Any, _: int) -> Any:
        return nn.functional.cross_entropy(self.model(batch['image']), batch['mask'])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_datamodule(bank: SyntheticBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    datamodule = run('datamodule', inner=Inner(), bank=bank, task=Task(), epochs=2)['datamodule']
    assert (datamodule.real_seen, datamodule.synthetic_seen) == (48, 24)


def test_smp_leaves_ignored_pixels_out() -> None:
    def ignoring(n: int, seed: int) -> Toy:
        toy = Toy('segmentation', n, seed)
        toy.spec = replace(toy.spec, ignore_index=IGNORE)
        toy.data['mask'][:, :2] = IGNORE
        return toy

    given = {'real': ignoring(24, 0), 'bank': ignoring(40, 1), 'classes': 3}
    space = run('smp', model=nn.Sequential(nn.Conv2d(BANDS, 3, 1)), **given)
    space['loss'].backward()
    counted = sum(space[name] for name in ('tp', 'fp', 'fn', 'tn')).sum(1)  # type: ignore[attr-defined]
    assert set(counted.tolist()) == {3 * 6 * 8}  # of 8 rows two are ignored


def test_smp(real: Toy, bank: SyntheticBank) -> None:
    model = nn.Sequential(nn.Conv2d(BANDS, 3, 1))
    space = run('smp', real=real, bank=bank, model=model, classes=3)
    space['loss'].backward()
    assert torch.isfinite(space['loss'])
    assert 0 <= float(space['iou']) <= 1
    assert torch.isfinite(model[0].weight.grad).all()
