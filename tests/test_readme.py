"""What the README says, run as it stands there."""

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_pairs import write_oscd
from snippets import examples, run_example
from torch.utils.data import DataLoader
from torchgeo.datasets import OSCD

import hsiaug
from hsiaug.records import read_json

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()


@pytest.fixture(scope='module')
def pasted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The names that there are after each example, all pasted in order into one session."""
    space: dict[str, Any] = {'__name__': '__main__'}
    with contextlib.chdir(tmp_path_factory.mktemp('pasted')):  # a training leaves its logs
        return {
            name: dict(run_example(source, f'README.md, example {name!r}', space)) for name, source in examples(README)
        }


def test_it_is_short() -> None:
    assert README.count('\n') <= 150


def test_first_two_commands() -> None:
    commands = re.findall(r'<!-- ci: \w+ -->\n```\n(.+)\n```', README)
    assert commands == ['pip install . && hsiaug demo', "pip install '.[test]' && pytest"]


def test_links_into_the_repository_exist() -> None:
    for target in re.findall(r'\]\((?!http|#)([^)#]+)\)', README):
        assert (ROOT / target).exists(), target


FIRST, PASTED = 'variability, synthetic first', 'smooth fields'
MEASURED = {
    'spectra: plain': [('spectra_sources/confirm', '10'), ('spectra_sources/confirm', '30'),
                       ('spectra_sources/confirm-all', 'all')],
    'spectra: [tuned]': [('spectra_sources/confirm-tuned', '10'), ('spectra_sources/confirm-tuned', '30'),
                         ('spectra_sources/confirm-tuned-all', 'all')],
    'image–mask pairs': [('region_paste/confirm.json', '10 windows')],
    'pairs of dates': [('region_paste/confirm_change.json', '10 windows'),
                       ('region_paste/again_change.json', '10 windows')],
}  # fmt: skip
"""What stands in each line of the table: of which results, and of which of their label budgets."""
METRICS = {'spectra: plain': 'oa', 'spectra: [tuned]': 'oa', 'image–mask pairs': 'miou', 'pairs of dates': 'f1'}


@pytest.mark.parametrize('title', MEASURED)
def test_its_table_is_what_was_measured(title: str) -> None:
    line = next(line for line in README.splitlines() if line.startswith(f'| {title}')).replace('−', '-')
    *_, gains, of = [cell.strip() for cell in line.strip('|').split('|')]
    wanted, seeds = [], int(of.split(', ')[1])
    for place, budget in MEASURED[title]:
        file = ROOT / 'benchmarks/results' / place
        record = read_json(file if file.suffix else file / 'table.json', 'a table')
        (mean,) = (
            row[METRICS[title]] for row in record['table']
            if (row['scene'], row['budget']) == ('mean', budget) and row['arm'] in (FIRST, PASTED)
        )  # fmt: skip
        assert mean['n'] == seeds
        wanted += [mean['mean'], *mean['interval']]
    found = [float(number) for number in re.findall(r'[+-]\d+\.\d', gains)]
    assert found == pytest.approx(wanted, abs=0.051)


def test_a_scene(pasted: dict[str, dict[str, Any]]) -> None:
    space = pasted['scene']
    mixed, real = space['mixed'], space['real']
    assert space['known'].ratio > 0
    assert (len(mixed), mixed.num_synthetic) == (len(real), 0), 'the last epoch is of real samples alone'
    mixed.set_epoch(0)
    assert mixed.num_synthetic == len(mixed)
    assert space['batch']['image'].shape[1] == 100


def test_a_dataset(pasted: dict[str, dict[str, Any]]) -> None:
    space = pasted['dataset']
    assert len(space['pairs']) == 12 * 4
    assert len(space['mixed']) == 2 * 12 * 4
    assert space['mixed'][-1]['image'].shape == (8, 32, 32)
    assert space['mixed'].is_synthetic().sum() == 12 * 4


def test_a_training_of_torchgeo(pasted: dict[str, dict[str, Any]]) -> None:
    space = pasted['training']
    assert space['task'].trainer.global_step == len(space['mixed']) // 16 == 6


def test_a_loop(pasted: dict[str, dict[str, Any]]) -> None:
    space = pasted['loop']
    assert (space['mix'].real_seen, space['mix'].synthetic_seen) == (96, 96)
    assert np.bincount(space['batch']['synthetic'].int()).tolist() == [16, 16]


def test_a_dataset_of_torchgeo(tmp_path: Path) -> None:
    """What the README says of datasets, of one that torchgeo has."""
    for split, sizes in (('train', {'a': (64, 70), 'b': (66, 40)}), ('test', {'c': (40, 33)})):
        write_oscd(tmp_path / 'oscd', sizes, split)
    write_oscd(tmp_path / 'more', {'d': (32, 64)})
    settings = {
        'image_latents': 2, 'mask_latents': 2, 'vae_channels': 4, 'unet_channels': (8, 16), 'sampling_steps': 1,
        'vae_iterations': 2, 'diffusion_iterations': 2, 'batch_size': 2, 'vae_batch_size': 2, 'augment': False,
    }  # fmt: skip
    train = hsiaug.adapt(OSCD(str(tmp_path / 'oscd'), split='train'), size=32)
    more = OSCD(str(tmp_path / 'more'))
    with pytest.warns(UserWarning, match='only 6 training patches'):
        generator = hsiaug.fit('two_stream_diffusion', train, unlabelled=more, **settings)
    test = OSCD(str(tmp_path / 'oscd'), split='test')
    mixed = hsiaug.MixedDataset(train, generator, ratio=0.5, evaluation=test)
    assert len(mixed) == 6 + 3
    batch = next(iter(DataLoader(mixed, batch_size=16, shuffle=True)))
    assert batch['image'].shape == (9, 2, 13, 32, 32)
    assert generator.provenance.samples.count == 2 * (6 + 2)  # two dates of each
