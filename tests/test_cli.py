import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import scipy.io
import torch
import yaml
from banks import launched
from commands import refused
from lightning.fabric import Fabric
from matplotlib.image import imread
from rasterio.errors import NotGeoreferencedWarning
from torch.utils.data import Dataset

from hsiaug.cli import main
from hsiaug.cli.guard import require_device
from hsiaug.datasets import SyntheticBank, SyntheticDataset, write_bank
from hsiaug.datasets.bank import writer
from hsiaug.datasets.preview import preview_grid
from hsiaug.named_configs import read_yaml
from hsiaug.samples import Sample, SampleSpec
from hsiaug.scenes import SimulatedScene, make_splitter, open_scene
from hsiaug.systems import Generator
from hsiaug.systems.spectral_gan.train import SpectralGANConfig

GAN = '--settings={iterations: 3, hidden: 8}'
CONFIGS = Path(__file__).parents[1] / 'configs'


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, scene = tmp_path_factory.mktemp('scene'), SimulatedScene(32, 32, classes=3)
    cube, labels = folder / 'PaviaU.mat', folder / 'PaviaU_gt.mat'
    scipy.io.savemat(cube, {'paviaU': scene.cube})
    scipy.io.savemat(labels, {'paviaU_gt': scene.labels})
    return cube, labels


@pytest.fixture(scope='module')
def run(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a trained GAN."""
    folder = tmp_path_factory.mktemp('run') / 'gan'
    scene = [f'--scene.path={files[0]}', f'--scene.labels={files[1]}']
    main(['train', f'--out={folder}', *scene, '--split.settings={fraction: 0.2}', GAN])
    return folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of one chunk, 1024 spectra."""
    monkeypatch.setitem(write_bank.__kwdefaults__, 'shard_bytes', 1)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_evaluate_writes_figures_and_the_card(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(['evaluate', str(run), '--per_class=20'])
    printed = capsys.readouterr().out
    assert 'real→fake' in printed
    assert (run / 'figures' / 'class_spectra.png').stat().st_size > 10_000
    assert (run / 'figures' / 'interpolation_within.png').exists()
    assert 'mSAD' in (run / 'README.md').read_text()


# --- the page on a bank -----------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def drawn(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bank = tmp_path_factory.mktemp('banks') / 'drawn'
    main(['sample', str(run), '--count=60', f'--out={bank}'])
    return bank


def test_evaluate_a_bank_beside_what_its_generator_learned_from(
    run: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(['evaluate', str(drawn), f'--real={run}', '--count=40'])
    printed = capsys.readouterr().out
    page = drawn.with_name('drawn_evaluation.html')
    assert printed.endswith(f'page: {page}\n')
    assert re.search(r'memorised: [\d.]+ % \(nominal false alarms: 5 %\)', printed)
    text = page.read_text()
    assert '40 of them, evenly spaced' in text
    assert 'Rejected samples' in text
    assert 'not known' not in text


def test_real_data_are_named_in_several_ways(
    files: tuple[Path, Path], run: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[str, bool]] = []

    def spy(bank: SyntheticBank, scene: Any, split: Any, count: Any, per_class: int, gates: bool, **_: Any) -> None:
        found.append((split.fingerprint, gates))

    monkeypatch.setattr('hsiaug.quality.inspection.inspect_bank', spy)
    monkeypatch.setattr('hsiaug.report.page.write_page', lambda *_: (tmp_path / 'page.html', []))
    scene = {'path': str(files[0]), 'labels': str(files[1])}
    (tmp_path / 'x.yaml').write_text(yaml.safe_dump({
        'scene': scene, 'split': {'strategy': 'random', 'settings': {'fraction': 0.2}}, 'generator': 'gaussian',
    }))  # fmt: skip
    named = [f'--real.path={files[0]}', f'--real.labels={files[1]}', '--split.settings={fraction: 0.2}']
    for real in ([f'--real={run}'], [f'--real={run / "run.json"}'], [f'--real={tmp_path / "x.yaml"}'], named):
        main(['evaluate', str(drawn), *real])
    expected = make_splitter('random', fraction=0.2)(open_scene(*files), 0).fingerprint
    assert found == [(expected, True)] * 4
    main(['evaluate', str(drawn), f'--real={run}', '--seed=3', '--split.strategy=halves', '--no_gates'])
    assert found[4] == (make_splitter('halves')(open_scene(*files), 3).fingerprint, False)


def test_the_readme_and_the_pages_evaluate_as_one_can(capsys: pytest.CaptureFixture[str]) -> None:
    root = CONFIGS.parent
    pages = '\n'.join(page.read_text() for page in (root / 'README.md', *sorted((root / 'docs').rglob('*.md'))))
    commands = re.findall(r'^hsiaug (evaluate [^#\n]+)', pages, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        with pytest.raises(SystemExit) as stopped:
            main([*command.split(), '--print_config'])
        assert not stopped.value.code
        assert yaml.safe_load(capsys.readouterr().out)['run'].startswith('runs/')


def test_mistakes_about_pages_are_one_line(
    run: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'x.yaml').write_text('scenery: {path: cube.mat}')
    page = tmp_path / 'page.html'
    for args, message in (
        ([str(drawn)], 'is a bank; give --real to compare it with'),
        ([str(drawn), '--real=nowhere'], 'nowhere does not exist; give the folder that hsiaug train wrote'),
        ([str(drawn), f'--real={tmp_path / "x.yaml"}'], 'is not a config file of hsiaug train'),
        ([str(drawn), f'--real={run}', '--seed=1'], 'evaluation pixels'),
        ([str(drawn), f'--real={run}', f'--study={tmp_path / "nowhere"}'], 'neither the run folder of a study'),
        ([str(run), f'--real={run}'], 'is not a bank'),
    ):
        assert message in refused(capsys, 'evaluate', *args, f'--out={page}')
    assert not page.exists()


# --- banks ------------------------------------------------------------------------------------------------------------


def test_sample_writes_a_bank_and_the_same_command_opens_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ['sample', str(run), '--count=30', f'--out={tmp_path / "bank"}', '--labels=uniform', '--seed=7']
    main(command)
    bank = SyntheticBank.open(tmp_path / 'bank')
    generator = Generator.from_pretrained(run)
    expected = SyntheticDataset(generator, 30, seed=7, labels='uniform').batch(range(30))
    assert all(torch.equal(value, expected[key]) for key, value in bank.batch(range(30)).items())
    assert bank.class_counts is not None
    assert bank.class_counts.tolist() == [10, 10, 10]
    assert bank.provenance == generator.provenance
    classes = dict.fromkeys(bank.spec.classes, 10)
    assert capsys.readouterr().out == f'30 samples, {classes}: {tmp_path / "bank"}\n'
    before = contents(tmp_path / 'bank')
    main(command)
    assert contents(tmp_path / 'bank') == before
    with pytest.raises(SystemExit):
        main([*command[:-1], '--seed=8'])
    assert 'seed: there 7, here 8' in capsys.readouterr().err
    assert contents(tmp_path / 'bank') == before


@pytest.mark.usefixtures('small_shards')
@pytest.mark.parametrize('signal_number', [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_sample_goes_on(
    signal_number: int, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(name: str) -> list[str]:
        return ['sample', str(run), '--count=5000', '--labels=inverse', f'--out={tmp_path / name}']

    main(command('whole'))
    draw, calls = Generator.sample, []

    def counted(self: Generator, *args: Any, **settings: Any) -> Any:
        calls.append(args)
        if len(calls) == 4 and stopping:
            os.kill(os.getpid(), signal_number)
        return draw(self, *args, **settings)

    monkeypatch.setattr(Generator, 'sample', counted)

    def stopped() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job would ignore
        main(command('bank'))

    stopping = True
    process = multiprocessing.get_context('fork').Process(target=stopped)
    process.start()
    process.join(60)
    assert process.exitcode == (-signal.SIGKILL if signal_number == signal.SIGKILL else 1)
    assert len(list((tmp_path / 'bank').glob('shard-*'))) == 3
    said = 'finished shards are in ' + str(tmp_path / 'bank') + '; repeat the command to continue'
    assert (said in capfd.readouterr().err) == (signal_number == signal.SIGINT)
    stopping = False
    main(command('bank'))
    assert len(calls) == 2  # of five shards
    assert contents(tmp_path / 'bank') == contents(tmp_path / 'whole')


@pytest.mark.usefixtures('small_shards')
def test_two_processes_fill_one_bank(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def command(name: str) -> list[str]:
        return ['sample', str(run), '--count=5000', f'--out={tmp_path / name}']

    def both(fabric: Fabric) -> None:
        def noted(path: Path, **options: Any) -> Any:
            with (tmp_path / f'rank-{fabric.global_rank}').open('a') as file:
                file.write(f'{path.name}\n')
            return write(path, **options)

        write = writer.written_whole
        fabric.launch = lambda: None  # type: ignore[method-assign, assignment]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr('lightning.fabric.Fabric', lambda **_: fabric)
            patch.setattr(writer, 'written_whole', noted)
            main([*command('two'), '--devices=2', '--verify'])

    capfd.readouterr()
    launched(both)
    done = capfd.readouterr().out
    main(command('one'))
    assert contents(tmp_path / 'two') == contents(tmp_path / 'one')
    first = capfd.readouterr().out.replace(str(tmp_path / 'one'), str(tmp_path / 'two'))
    assert done == first + '5000 samples in 5 shards: all checksums are correct\n'  # said once
    odd, even = ((tmp_path / f'rank-{rank}').read_text().split() for rank in (1, 0))
    assert odd == ['shard-00001.safetensors', 'shard-00003.safetensors']
    assert even == [f'shard-0000{number}.safetensors' for number in (0, 2, 4)]


@pytest.mark.usefixtures('small_shards')
def test_verify_names_the_damaged_shard(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bank = tmp_path / 'bank'
    main(['sample', str(run), '--count=3000', f'--out={bank}'])
    capsys.readouterr()
    for command in (['--verify', str(bank)], [str(bank), '--verify']):
        main(['sample', *command])
        assert capsys.readouterr().out == '3000 samples in 3 shards: all checksums are correct\n'
    shard = bank / 'shard-00001.safetensors'
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    for command in (['--verify', str(bank)], [str(run), '--count=3000', f'--out={bank}', '--verify']):
        with pytest.raises(SystemExit) as stopped:
            main(['sample', *command])
        assert stopped.value.code == 2
        captured = capsys.readouterr()
        assert 'shard-00001.safetensors: the checksums of its blocks' in captured.err
        assert 'shard-00000' not in captured.err
        assert 'right' not in captured.out


def test_preview_shows_the_real_samples_that_the_generator_learned_from(
    files: tuple[Path, Path],
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[Any] = []

    def spy(real: Any, synthetic: Any, *rest: Any, **settings: Any) -> Any:
        shown[:] = real, synthetic
        return preview_grid(real, synthetic, *rest, **settings)

    monkeypatch.setattr('hsiaug.report.bank.preview_grid', spy)
    bank, picture = tmp_path / 'bank', tmp_path / 'bank_preview.png'
    main(['sample', str(run), '--count=90', '--labels=uniform', f'--out={bank}', '--preview'])
    assert f'preview: {picture}\n' in capsys.readouterr().out
    assert imread(picture).std() > 0.05
    before = set(contents(bank))
    scene = open_scene(files[0], files[1])
    train = make_splitter('random', fraction=0.2)(scene, 0).train
    assert torch.equal(shown[0]['image'], torch.from_numpy(scene.spectra(train)))
    assert shown[0]['label'].tolist() == (scene.flat_labels()[train] - 1).tolist()
    assert torch.equal(shown[1]['image'], SyntheticBank(bank).batch(range(90))['image'])

    picture.unlink()
    main(['sample', '--preview', str(bank)])  # nothing tells where a bank's generator is
    assert shown[0] is None
    assert imread(picture).std() > 0.05
    assert set(contents(bank)) == before

    Generator.from_pretrained(run).save_pretrained(tmp_path / 'saved')  # has no run.json
    main(['sample', str(tmp_path / 'saved'), '--count=90', f'--out={tmp_path / "other"}', '--preview'])
    assert shown[0] is None
    assert (tmp_path / 'other_preview.png').exists()


class Patches(Dataset[Sample]):
    """Patches with masks."""

    spec = SampleSpec('segmentation', 4, ('water', 'grass'), size=(6, 5))

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> Sample:
        rng = torch.Generator().manual_seed(index)
        return {'image': torch.rand(4, 6, 5, generator=rng), 'mask': torch.randint(0, 2, (6, 5), generator=rng)}


def test_exports_lie_beside_the_bank(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(['sample', str(run), '--count=30', f'--out={tmp_path / "bank"}', '--export=npz'])
    assert f'npz: {tmp_path / "bank.npz"}\n' in capsys.readouterr().out
    batch = SyntheticBank(tmp_path / 'bank').batch(range(30))
    with np.load(tmp_path / 'bank.npz', allow_pickle=False) as out:
        assert all(np.array_equal(out[key], value) for key, value in batch.items())
        assert json.loads(str(out['record']))['provenance']['split'] is not None
    main(['sample', str(tmp_path / 'bank'), '--export=webdataset'])
    said = refused(capsys, 'sample', str(tmp_path / 'bank'), '--export=npz', f'--out={tmp_path / "elsewhere"}')
    assert 'written next to it; leave out --out' in said
    with tarfile.open(tmp_path / 'bank_webdataset' / 'data' / 'train-00000.tar') as archive:
        spectrum = np.load(io.BytesIO(archive.extractfile('00000007.image.npy').read()))  # type: ignore[union-attr]
    assert np.array_equal(spectrum, batch['image'][7])


def test_banks_of_patches_are_shown_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bank(Patches(), None, tmp_path / 'patches')
    monkeypatch.chdir(tmp_path / 'patches')  # its name is not in the path
    main(['sample', '.', '--verify', '--preview', '--export=geotiff'])
    assert '9 samples in 1 shards: all checksums are correct' in capsys.readouterr().out
    assert imread(tmp_path / 'patches_preview.png').std() > 0.05
    mask = tmp_path / 'patches_geotiff' / 'masks' / '000003.tif'
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(mask) as file:
        assert np.array_equal(file.read(1), Patches()[3]['mask'])


def test_mistakes_about_banks_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(['sample', str(run), '--count=5', f'--out={tmp_path / "bank"}'])
    (tmp_path / 'file').touch()
    capsys.readouterr()
    for args, message in (
        ([str(tmp_path / 'bank')], 'is a bank already; add --verify, --preview or --export'),
        ([str(run), '--out=spectra.npz'], 'add --export npz'),
        ([str(run), f'--out={tmp_path / "file"}'], 'Not a directory'),
        ([str(run), f'--out={run}'], 'is not a bank and not empty'),
        ([str(run), '--count=0', f'--out={tmp_path / "x"}'], 'count must be at least 1 or None, found 0'),
        ([str(run), '--labels={gold: 1}', f'--out={tmp_path / "x"}'], "unknown classes ['gold']"),
        ([str(run), '--device=gpu', f'--out={tmp_path / "x"}'], "unknown device 'gpu'; choose cpu, cuda"),
        ([str(run), '--device=cuda:99', f'--out={tmp_path / "x"}'], 'needs 100 GPUs'),
        ([str(run), '--device=cuda:0', '--devices=2', f'--out={tmp_path / "x"}'], 'choose --device cuda'),
        ([str(run), '--devices=0', f'--out={tmp_path / "x"}'], 'must be at least 1, found 0 and 1'),
        ([str(tmp_path / 'bank'), '--export=geotiff'], "format='npz'"),
        (['--verify', str(tmp_path / 'nowhere')], f'no folder {tmp_path / "nowhere"}'),
    ):
        assert message in refused(capsys, 'sample', *args)
    assert not (tmp_path / 'x').exists()


# --- studies ----------------------------------------------------------------------------------------------------------


SMALL_NETWORK = '--model={hidden: 8, layers: 1, steps: 5}'


def test_ratio_is_chosen_on_folds_resumed_and_shown(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(run, tmp_path / 'gan')
    search = ['ratio', str(folder), '--ratios=[1, 2]', '--trials=3', SMALL_NETWORK]
    main(search)
    said = capsys.readouterr().out
    found = json.loads((folder / 'ratio.json').read_text())
    assert re.match(rf'ratio {found["chosen"]["ratio"]:g}: ', said)
    assert {one['candidate']['ratio'] for one in found['standings']} == {1.0, 2.0}
    assert found['k'] == 1.0
    lines = (folder / 'ratio_trials.jsonl').read_text()

    def no_more(*args: object) -> None:
        raise AssertionError('a trial that is recorded runs again')

    monkeypatch.setattr('hsiaug.tasks.spectrum.train_nn1d', no_more)
    main(search)
    assert capsys.readouterr().out == said
    assert (folder / 'ratio_trials.jsonl').read_text() == lines
    monkeypatch.undo()
    main([*search, '--gated', '--k=0'])
    gated = json.loads((folder / 'ratio.json').read_text())
    assert {one['candidate']['threshold'] for one in gated['standings']} == {0.05}
    assert gated['k'] == 0
    main(['sample', str(folder), '--count=30', f'--out={tmp_path / "bank"}'])
    page = ['evaluate', str(tmp_path / 'bank'), f'--real={folder}', '--no_gates', f'--study={folder / "ratio.json"}']
    main(page)
    assert 'difference to real data only' in (tmp_path / 'bank_evaluation.html').read_text()


def test_mistakes_about_ratios_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = shutil.copytree(run, tmp_path / 'old')
    note = json.loads((old / 'run.json').read_text())
    (old / 'run.json').write_text(json.dumps({key: note[key] for key in ('scene', 'split', 'seed')}))
    bare = shutil.copytree(run, tmp_path / 'bare')
    (bare / 'run.json').unlink()
    for arguments, message in (
        ([str(old)], 'does not name the generator; train again'),
        ([str(bare)], 'holds no run.json'),
        ([str(run), '--ratios=[0]'], 'at least one ratio above 0'),
        ([str(run), '--share=2'], r'must be in \(0, 1\]'),
        ([str(tmp_path / 'none')], 'holds no run.json'),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(['ratio', *arguments, SMALL_NETWORK])
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert re.search(message, said), said
        assert said.count('\n') == 1
    assert not (run / 'ratio.json').exists()


def test_ablate_by_config_and_report_again(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / 'pavia'
    main([
        'ablate', f'--config={CONFIGS / "ablate_spectra.yaml"}', f'--scene.path={files[0]}',
        f'--scene.labels={files[1]}', f'--out={run}', '--seeds=2', '--ratios=[1]', '--workers=1', '--per_class=[12]',
        '--arms=[{name: mixup, generator: mixup, settings: {partners: across}}]',
        '--models=[{name: linear_svm, c: [1.0]}]', '--split.settings={on_rare: drop}',
    ])  # fmt: skip
    table = capsys.readouterr().out
    assert 'PaviaU, halves, 12 per class, linear_svm' in table
    assert 'no basis for claims' in table
    first = (run / 'report.md').read_bytes()
    main(['report', str(run)])
    assert (run / 'report.md').read_bytes() == first


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, message in (
        (['ablate', f'--out={tmp_path / "x"}', '--scene.path=nowhere.mat'], 'nowhere.mat does not exist'),
        (['report', str(tmp_path)], 'holds no plan.json'),
        (['ablate', f'--out={tmp_path / "x"}', '--ratios=[-1]'], 'finite number >= 0'),
        (['train', f'--out={tmp_path / "x"}', '--generator=ganerator'], 'unknown generator'),
        (['sample', str(tmp_path), f'--out={tmp_path / "bank"}'], 'holds neither a bank (bank.json) nor a generator'),
        (['evaluate', str(tmp_path)], 'holds no config.json'),
    ):
        assert message in refused(capsys, *args)
    assert not (tmp_path / 'bank').exists()


# Those named torchgeo_... and terratorch_... are for other command lines, those with rows for reproduce alone.
OWN_CONFIGS = sorted(
    path
    for path in CONFIGS.glob('*.yaml')
    if not path.stem.startswith(('torchgeo_', 'terratorch_')) and not path.read_text().count('\nrows:\n')
)


@pytest.mark.parametrize('config', OWN_CONFIGS, ids=lambda p: p.stem)
def test_configs_parse(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = 'train' if 'generator' in read_yaml(config.read_text()) else 'ablate'
    with pytest.raises(SystemExit) as stopped:
        main([command, f'--config={config}', f'--out={tmp_path}', '--print_config'])
    assert not stopped.value.code
    assert 'strategy' in capsys.readouterr().out


def test_published_setting_is_the_papers() -> None:
    settings = yaml.safe_load((CONFIGS / 'audebert2018.yaml').read_text())['settings']
    assert SpectralGANConfig(**settings) == SpectralGANConfig.paper()


def test_quick_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['ablate', '--quick', '--print_config'])
    assert 'quick: true' in capsys.readouterr().out


def test_auto_takes_a_gpu_where_there_is_one_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert require_device('auto') == 'cpu'
    assert capsys.readouterr().err == ''
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'a GPU')
    assert require_device('auto') == 'cuda'
    assert capsys.readouterr().err == 'device: cuda, a GPU\n'
