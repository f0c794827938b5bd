"""The command for the minutes on a GPU: a failing part is recorded and the rest goes on; nothing is done twice."""

import json
import math
import sys
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
import gpu
import gpu_studies

from hsiaug.json_lines import read_lines
from hsiaug.scenes import PatchSplitter, SimulatedScene
from hsiaug.systems.msrresgan.train import SuperResolutionConfig

RESULT = {
    'fidelity': {
        'two-stream': {'fid_image': 12.0, 'alignment': 0.93}, 'single stream': {'fid_image': 15.0, 'alignment': None},
    },
    'metric': 'miou', 'n': 10, 'real_only': 0.5, 'diffusion_steps': 500, 'whole': True,
    'gains': {
        '1': {'mean': 0.01, 'interval': [-0.01, 0.03]}, '5': {'mean': -0.02, 'interval': [None, None]},
        'region_paste': {'mean': 0.02, 'interval': [0.01, 0.03]},
    },
}  # fmt: skip


def test_a_failing_part_is_recorded_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def run(name: str, device: str, toy: bool, seconds: float, out: Path) -> dict[str, Any]:
        ran.append((name, seconds))
        found = {'error': 'ValueError: no such scene'} if name == 'change' else {'result': RESULT}
        return {'part': name, 'toy': toy, 'seconds': 1.0, 'machine': {'device': 'a GPU'}, **found}

    monkeypatch.setattr(gpu, 'run_part', run)
    call = ['gpu.py', '--device', 'cpu', '--out', str(tmp_path), '--parts', 'change', 'segmentation']
    monkeypatch.setattr(sys, 'argv', [*call, '--minutes', '2'])
    gpu.main()
    assert [name for name, _ in ran] == ['change', 'segmentation']
    assert 30 < ran[0][1] < 35  # its share of the two
    assert 110 < ran[1][1] <= 120  # all that is left
    rows = [json.loads(line) for line in (tmp_path / 'parts.jsonl').read_text().splitlines()]
    assert [('error' in row, row['part']) for row in rows] == [(True, 'change'), (False, 'segmentation')]
    table = (tmp_path / 'table.md').read_text()
    assert '| change | two-stream above real only | error: ValueError: no such scene |' in table
    assert (
        '| segmentation | two-stream above real only | FID 12, single stream 15; alignment 0.93, single stream –; '
        'real only 0.5000 miou; r = 1 +0.0100 [-0.0100, +0.0300]; r = 5 -0.0200; '
        'region_paste +0.0200 [+0.0100, +0.0300]; n = 10, 500 steps |' in table
    )
    assert '| sampling | at most 10 ms a pair, at least 40 times | not run |' in table
    gpu.main()  # again: what has a result is left as it is
    assert [name for name, _ in ran] == ['change', 'segmentation', 'change']
    assert table.splitlines()[2] == 'Device: a GPU.'


def test_timings_run_alone_and_before_what_runs_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running: set[str] = set()
    beside: dict[str, set[str]] = {}
    both = Barrier(2)

    def run(name: str, device: str, toy: bool, seconds: float, out: Path) -> dict[str, Any]:
        running.add(name)
        if not gpu.PARTS[name].timed:
            both.wait(10)  # which comes to an end only if the other has begun
        beside[name] = running - {name}
        if gpu.PARTS[name].timed:
            running.remove(name)
        return {'part': name, 'toy': toy, 'seconds': seconds, 'machine': {'device': 'a GPU'}, 'error': 'none: a test'}

    monkeypatch.setattr(gpu, 'run_part', run)
    call = ['gpu.py', '--device', 'cpu', '--minutes', '2', '--side-by-side', '--out', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', [*call, '--parts', 'change', 'segmentation', 'sampling', 'spectral_gan'])
    gpu.main()
    assert beside == {
        'sampling': set(), 'spectral_gan': set(), 'change': {'segmentation'}, 'segmentation': {'change'},
    }  # fmt: skip
    seconds = {row['part']: row['seconds'] for row in read_lines(tmp_path / 'parts.jsonl', 'part', 'a part')}
    assert seconds['change'] == seconds['segmentation'] > 110


def test_the_length_of_a_training_follows_from_the_time() -> None:
    none: Any = None
    plan = gpu_studies.Gains(none, none, none, {}, most=500)
    assert plan.length(0.25, 100) == {'rounds': 400, 'seconds_per_round': 0.25}
    assert plan.length(0.25, 1000)['rounds'] == 500
    assert plan.length(0.25, -1)['rounds'] == 1


def test_networks_are_trained_until_they_no_longer_gain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from validation windows alone; what was trained before is not trained again."""
    gain = {'bicubic': 9.0, 'srcnn': 0.04, 'srgan': -1.0, 'msrresnet': 2.0, 'msrresgan': 2.0}
    trained: list[tuple[str, int]] = []

    def train(data: Any, config: SuperResolutionConfig, run: Any) -> SuperResolutionConfig:
        trained.append((config.network, config.iterations))
        return config

    def scores(image: SuperResolutionConfig, *_: Any) -> Any:
        return SimpleNamespace(psnr=30 + gain[image.network] * min(math.log2(image.iterations), 3), sam=0.1)

    for name, replaced in {'train_super_resolution': train, 'super_resolution_scores': scores}.items():
        monkeypatch.setattr(gpu_studies, name, replaced)
    monkeypatch.setattr(gpu_studies, 'restored', lambda model, *_: model)
    scene, windows = SimulatedScene(32, 32, gpu.WAVELENGTHS, classes=2), PatchSplitter(size=8)

    def resolve(seconds: float, longest: int = 64) -> dict[str, Any]:
        config = SuperResolutionConfig()
        return gpu_studies.resolve(scene, windows, config, 1, longest, seconds, tmp_path, 'cpu')

    cut = resolve(-1.0)
    assert trained == [(name, 1) for name in gain]
    assert not cut['whole']
    assert 'msrresnet 30.00 dB (still rises at 1 steps)' in gpu_studies.ordered(cut)
    rising = resolve(1e9, longest=2)
    assert rising['whole']  # as long as was asked for
    assert not rising['networks']['msrresnet']['flat']
    found = resolve(1e9)['networks']
    assert len(trained) == len(set(trained))
    assert {name: row['steps'] for name, row in found.items()} == {
        'bicubic': 1, 'srcnn': 2, 'srgan': 2, 'msrresnet': 16, 'msrresgan': 16,
    }  # fmt: skip
    assert all(row['flat'] for row in found.values())


@pytest.mark.slow
def test_every_part_runs_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'argv', ['gpu.py', '--device', 'cpu', '--toy', '--minutes', '2', '--out', str(tmp_path)])
    gpu.main()
    rows = [json.loads(line) for line in (tmp_path / 'parts.jsonl').read_text().splitlines()]
    assert [row['part'] for row in rows] == list(gpu.PARTS)
    for row in rows:
        assert 'result' in row, row
    # A study that goes on keeps its models, and adds the seeds that it lacks.
    before = read_lines(tmp_path / 'segmentation' / 'scores.jsonl', 'seed', 'scores')
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / 'segmentation').rglob('model.safetensors')}
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--parts', 'segmentation'])
    gpu.main()
    after = read_lines(tmp_path / 'segmentation' / 'scores.jsonl', 'seed', 'scores')
    assert after[: len(before)] == before
    assert len(after) > len(before) or len(before) == 10
    assert len(made) == 2
    assert all(p.stat().st_mtime_ns == time for p, time in made.items())
