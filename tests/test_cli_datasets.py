"""The steps of the command line with datasets in the place of a scene: torchgeo's own, and folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import refused
from PIL import Image
from real_pairs import BarkBeetles, folders, oscd, write_geotiffs, write_oscd, write_oscd_cities

from hsiaug.cli import main
from hsiaug.datasets import ChangeFolder, MixedDataset, PairFolder, SyntheticBank, adapt
from hsiaug.samples import LeakageError
from hsiaug.systems import Generator

TINY = (
    '{image_latents: 2, mask_latents: 2, vae_channels: 4, unet_channels: [8, 16], sampling_steps: 2, '
    'vae_iterations: 3, diffusion_iterations: 3, vae_batch_size: 4}'
)
DETECTOR = '{name: tiny, config: {model: changeformer-v3, encoder: mit_tiny, channels: 8, steps: 4, batch_size: 4}}'
SEGMENTER = '{name: tiny, config: {encoder: mit_tiny, channels: 8, steps: 4, batch_size: 4}}'
FLIPS = '--arms=[{name: flips, generator: patch_augment, settings: {kind: flips}, labels: real}]'


def through_all(
    tmp_path: Path, data: list[str], generator: list[str], model: str, real: Any, test: Any, *options: str
) -> None:
    """Train, evaluate, sample, mix and ablate."""
    run, bank = tmp_path / 'run', tmp_path / 'bank'
    main(['train', f'--out={run}', *data, *options, *generator])
    main(['evaluate', str(run), '--count=12', '--trust_run'])
    assert (run / 'figures' / 'pairs.png').stat().st_size > 10_000
    main(['sample', str(run), '--count=8', f'--out={bank}'])
    mixed = MixedDataset(real, SyntheticBank.open(bank), 0.1, replacement=True)
    assert mixed[len(mixed) - 1]['image'].shape == real[0]['image'].shape
    with pytest.raises(LeakageError, match='has seen'):
        MixedDataset(real, SyntheticBank.open(bank), 0.1, replacement=True, evaluation=real)
    if test is not None:
        MixedDataset(real, SyntheticBank.open(bank), 0.1, replacement=True, evaluation=test)
    study = tmp_path / 'study'
    main(['ablate', f'--out={study}', *data, *options, FLIPS, '--ratios=[1]', '--seeds=2', f'--models=[{model}]'])
    rows = [json.loads(line) for line in (study / 'results.jsonl').read_text().splitlines()]
    assert [row['arm'] for row in rows] == ['real', 'flips', 'real', 'flips']
    main(['ablate', f'--out={study}', *data, *options, FLIPS, '--ratios=[1]', '--seeds=2', f'--models=[{model}]'])
    assert len((study / 'results.jsonl').read_text().splitlines()) == 4  # nothing is run again


@pytest.mark.slow
def test_torchgeos_oscd(real_data: Path, tmp_path: Path) -> None:
    root = write_oscd_cities(real_data, tmp_path / 'oscd', ('bercy', 'mumbai', 'rennes'), 128)
    write_oscd_cities(real_data, root, ('aguasclaras',), 128, 'test')
    bands = ('B02', 'B03', 'B04', 'B08')
    parts = {
        part: [
            f'--{part}.class_path=torchgeo.datasets.OSCD', f'--{part}.init_args.root={root}',
            f'--{part}.init_args.split={split}', '--{}.init_args.bands=[{}]'.format(part, ','.join(bands)),
        ]
        for part, split in (('data', 'train'), ('test', 'test'))
    }  # fmt: skip
    editing = [
        '--generator=change_editing', f'--settings={{painter: {TINY}, clusters: 3, composites: 1}}',
        '--precision=bf16-mixed',
    ]  # fmt: skip
    real, test = (adapt(oscd(root, bands, split), size=32) for split in ('train', 'test'))
    options = ['--size=32', '--classes=[unchanged,changed]', '--wavelengths=[490,560,665,842]']
    through_all(tmp_path, [*parts['data'], *parts['test']], editing, DETECTOR, real, test, *options)
    noted = json.loads((tmp_path / 'run' / 'run.json').read_text())
    assert noted['test']['class_path'] == 'torchgeo.datasets.OSCD'
    assert noted['settings']['precision'] == 'bf16-mixed'
    assert Generator.from_pretrained(tmp_path / 'run').spec.wavelengths == (490, 560, 665, 842)


@pytest.mark.slow
def test_a_folder_of_cities(real_data: Path, tmp_path: Path) -> None:
    root = write_oscd_cities(real_data, tmp_path / 'oscd', ('aguasclaras', 'bercy', 'mumbai', 'rennes'), 128)
    masks, images = (root / folder for folder in folders('train'))
    layout = {
        'masks': str(masks), 'dates': ['imgs_1_rect', 'imgs_2_rect'], 'mask': 'cm/cm.png', 'label_map': {0: 0, 255: 1},
        'bands': ['B02', 'B03', 'B04', 'B08'],
    }  # fmt: skip
    data = [
        '--data.class_path=hsiaug.datasets.ChangeFolder', f'--data.init_args.root={images}',
        *(f'--data.init_args.{name}={json.dumps(value).replace(chr(34), "")}' for name, value in layout.items()),
    ]  # fmt: skip
    cities = ChangeFolder(images, **layout)
    pasting = ['--generator=region_paste']
    through_all(tmp_path, data, pasting, DETECTOR, adapt(cities, size=32), None, '--size=32', '--test_share=0.25')
    assert (tmp_path / 'run' / 'figures' / 'pairs.png').is_file()


@pytest.mark.slow
def test_pairs_of_twelve_bands(real_data: Path, tmp_path: Path) -> None:
    data = [
        '--data.class_path=real_pairs.BarkBeetles', f'--data.init_args.real_data={real_data}',
        f'--data.init_args.rows={list(range(24))}',
    ]  # fmt: skip
    real = adapt(BarkBeetles(real_data, range(24)), size=32, unit='reflectance')
    two_stream = ['--generator=two_stream_diffusion', f'--settings={TINY}']
    through_all(tmp_path, data, two_stream, DETECTOR, real, None, '--size=32', '--unit=reflectance')


@pytest.mark.slow
def test_a_folder_of_geotiffs(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = BarkBeetles(real_data, range(24))
    root = write_geotiffs(raw, tmp_path / 'tiffs', range(24), tuple(np.linspace(443, 2190, 12)), 32)
    data = [
        '--data.class_path=hsiaug.datasets.PairFolder', f'--data.init_args.root={root}',
        '--data.init_args.classes=[undamaged,damaged]',
    ]  # fmt: skip
    flips = ['--generator=patch_augment', '--settings={kind: flips}']
    real = PairFolder(root, raw.classes)
    through_all(tmp_path, data, flips, SEGMENTER, real, None)
    network = '--model={encoder: mit_tiny, channels: 8, steps: 4, batch_size: 4}'
    search = ['ratio', str(tmp_path / 'run'), '--ratios=[1]', '--folds=2', '--trials=2', network]
    main([*search, '--trust_run'])
    assert (tmp_path / 'run' / 'ratio.json').is_file()
    page = ['evaluate', str(tmp_path / 'bank'), f'--real={tmp_path / "run"}', '--no_gates']
    main([*page, '--trust_run'])
    assert 'None of' in (tmp_path / 'bank_evaluation.html').read_text()
    for command in (search, page, ['evaluate', str(tmp_path / 'run')]):
        assert 'names classes to import (data: hsiaug.datasets.PairFolder(' in refused(capsys, *command)
    # named anew, nothing of the folder is imported
    assert 'the test part is empty; give test, or a test_share above 0' in refused(
        capsys, *page, *data, '--test_share=0'
    )


# --- generated files ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight grey pictures with masks of two classes."""
    rng = np.random.default_rng(0)
    for name, high in (('images', 255), ('masks', 2)):
        (tmp_path / 'pairs' / name).mkdir(parents=True)
        for k in range(8):
            picture = rng.integers(0, high, (16, 16), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / 'pairs' / name / f'{k}.png')
    return tmp_path / 'pairs'


def of(folder: Path) -> list[str]:
    return ['--data.class_path=hsiaug.datasets.PairFolder', f'--data.root={folder}', '--data.classes=[a,b]']


def test_a_folder_imports_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, bank = tmp_path / 'run', tmp_path / 'bank'
    main(['train', f'--out={run}', *of(folder), '--generator=patch_augment', '--settings={kind: flips}'])
    (tmp_path / 'evil_data.py').write_text(f'open({str(tmp_path / "ran")!r}, "w").close()\nclass X: pass\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    note = json.loads((run / 'run.json').read_text())
    (run / 'run.json').write_text(json.dumps({**note, 'data': {'class_path': 'evil_data.X', 'root': 'x'}}))
    for command in ('evaluate', 'ratio'):
        assert "evil_data.X(root='x')" in refused(capsys, command, str(run))
    main(['sample', str(run), '--count=4', f'--out={bank}', '--preview'])
    assert 'add --trust_run to show them' in capsys.readouterr().out
    assert 'evil_data.X' in refused(capsys, 'evaluate', str(bank), f'--real={run}')
    assert not (tmp_path / 'ran').exists()
    assert 'is not a torch.utils.data.Dataset' in refused(capsys, 'evaluate', str(run), '--trust_run')
    assert (tmp_path / 'ran').exists()


def other_size(folder: Path) -> list[str]:
    Image.fromarray(np.zeros((8, 16), dtype=np.uint8)).save(folder / 'images' / '5.png')
    return of(folder)


def no_mask(folder: Path) -> list[str]:
    (folder / 'masks' / '3.png').unlink()
    return of(folder)


def pooled_oscd(folder: Path) -> list[str]:
    write_oscd(folder / 'oscd', {'a': (32, 32), 'b': (16, 32)})
    return ['--data.class_path=torchgeo.datasets.OSCD', f'--data.root={folder / "oscd"}', '--classes=[same,changed]']


@pytest.mark.parametrize(
    ('make', 'options', 'message'),
    [
        (other_size, [], 'sample 5 cannot be read'),
        (no_mask, [], '3.png'),
        (pooled_oscd, [], 'give size= to cut all into patches of one size'),
        (pooled_oscd, ['--size=32'], 'lie in 1 group(s), by the images that they are cut from; train and test and val'),
        (of, ['--val_share=0.6', '--test_share=0.5'], 'must add up to less than 1'),
        (of, ['--data.class_path=hsiaug.datasets.NoFolder'], 'hsiaug.datasets.NoFolder cannot be imported'),
        (of, ['--data.class_path=hsiaug.datasets.PairFoldr'], "cannot be imported; did you mean 'PairFolder'? hsiaug"),
        (of, ['--data.class_path=hsiaug.nothing.PairFolder'], 'ModuleNotFoundError: No module named'),
        (of, ['--data.class_path=its_own_fault.Samples'], 'cannot be imported: ZeroDivisionError: division by zero'),
        (of, ['--data.lable_map={0: 0, 255: 1}'], "does not take 'lable_map'; did you mean 'label_map'? choose from"),
        (of, ['--data.class_path=subprocess.Popen'], 'subprocess.Popen is not a torch.utils.data.Dataset'),
        (of, ['--data.class_path=PairFolder'], "such as torchgeo.datasets.OSCD, found 'PairFolder'"),
        (of, ['--data.rot=x'], 'rot'),
        (of, ['--data.root=nowhere'], 'PairFolder cannot be opened: FilesNotFoundError: '),
        (of, ['--data.classes=[a,b,c]'], "none of 4 samples holds ['c']: what never occurs cannot be learnt"),
        (of, ['--group=city'], "group 'city' is neither a key of sample 0, which has ['image', 'mask'], nor"),
        (of, ['--scene.path=x.npz'], 'give a scene and its split, or data, not both'),
        (
            of,
            ['--unlabelled.class_path=hsiaug.datasets.PairFolder'],
            '--unlabelled: hsiaug.datasets.PairFolder cannot be made',
        ),
        (lambda _: [], ['--size=32'], 'size: these go with a dataset; name one with --data.class_path'),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], list[str]],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'its_own_fault.py').write_text('1 / 0')
    run = tmp_path / 'run'
    flips = ['--generator=patch_augment', '--settings={kind: flips}']
    assert message in refused(capsys, 'train', f'--out={run}', *make(folder), *options, *flips)
    assert not run.exists()
