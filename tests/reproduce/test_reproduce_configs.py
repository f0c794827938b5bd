"""Every table of every paper has its published settings in ``configs/``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from public_layouts import write_hsrs_sc

from hsiaug.ablation import Arm
from hsiaug.cli.config import read_config
from hsiaug.cli.data import DataConfig
from hsiaug.datasets import SceneFolder
from hsiaug.named_configs import config_names, find_config
from hsiaug.records import as_record
from hsiaug.reproduce import PAPERS
from hsiaug.systems.fit import require_settings
from hsiaug.systems.unmixing_fusion.abundances.config import abundance_model
from hsiaug.tasks import TASKS

TABLES = [(paper, table) for paper in PAPERS.values() for table in paper.tables]


@pytest.mark.parametrize(('paper', 'table'), TABLES, ids=[f'{p.name}-{t.number}' for p, t in TABLES])
def test_every_table_has_a_config(paper, table) -> None:  # type: ignore[no-untyped-def]
    assert table.configs
    for name in table.configs:
        assert name.startswith(paper.name)
        found = read_config(find_config(name), name)
        for arm in found.get('arms', []):
            require_settings(arm['generator'], as_record(Arm, arm, name).settings)


def test_configs_with_a_table_in_their_name_belong_to_one() -> None:
    named = {name for _, table in TABLES for name in table.configs}
    assert {name for name in config_names() if '_table' in name} <= named


@pytest.mark.parametrize(
    ('name', 'other'),
    [
        ('audebert2018_table2_halves', 'audebert2018_table2'),
        ('specdm_table4', 'specdm_table5'),
        ('specdm_change_table4', 'specdm_change_table5'),
        ('specdm_change_table5', 'specdm_table5'),
    ],
)
def test_studies_of_one_paper_share_its_generator(name: str, other: str) -> None:
    mine, theirs = (read_config(find_config(one), one)['arms'] for one in (name, other))
    assert mine[0] == theirs[0]


@pytest.mark.parametrize('name', ['specdm_table4', 'specdm_change_table4'])
def test_table_4_differs_in_the_spectral_angle_alone(name: str) -> None:
    with_angle, without = (arm['settings'] for arm in read_config(find_config(name), name)['arms'])
    assert without == {**with_angle, 'sad_weight': 0.0}
    assert 'sad_weight' not in with_angle


def test_unmixing_fusion_chikusei_has_the_bands_of_the_text() -> None:
    for kind in ('ddpm', 'stylegan3', 'vdvae'):
        scene = read_config(find_config(f'unmixing_fusion_{kind}'), kind)['scene']
        low, high = scene['range_nm']
        assert len(scene['wavelengths']) == 128
        assert sum(low <= centre <= high for centre in scene['wavelengths']) == 59


def test_table_3_of_unmixing_fusion_is_a_study_of_folders(tmp_path: Path) -> None:
    found = read_config(find_config('unmixing_fusion_table3'), 'Table 3')
    DataConfig(**{key: found[key] for key in ('data', 'val_share', 'test_share')})
    write_hsrs_sc(tmp_path, count=1)
    scenes = SceneFolder(**{**found['data']['init_args'], 'root': tmp_path / 'HSRS-SC'})
    # by which red, green and blue are found
    assert np.allclose(scenes.spec.wavelengths, np.linspace(382.5, 1055.5, 48), atol=0.1)
    assert [round(761 * (1 + ratio)) for ratio in found['ratios']] == [4000, 8000]
    assert [TASKS['scene'].model(model).name for model in found['models']] == ['AlexNet', 'VGG-16', 'ResNet-18']
    generator = read_config(find_config('unmixing_fusion_stylegan3'), 'Table 1')['settings']
    settings = next(arm['settings'] for arm in found['arms'] if arm['generator'] == 'unmixing_fusion')
    assert settings == {**generator, 'conditional': True}


@pytest.mark.parametrize(('kind', 'millions'), [('vdvae', 181), ('stylegan3', 37.8), ('ddpm', 119)])
def test_unmixing_fusion_networks_have_the_size_that_their_files_say(kind: str, millions: float) -> None:
    text = find_config(f'unmixing_fusion_{kind}').read_text()
    assert f'{millions} million' in text
    assert 'published' in text
    settings = read_config(find_config(f'unmixing_fusion_{kind}'), kind)['settings']
    with torch.device('meta'):
        model = abundance_model(settings['abundances']['kind'], 5, 256, 0, **settings['abundances']['network'])
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
    assert settings['abundances'].get('network', {}).get('form', 'ddpm') == 'ddpm'
