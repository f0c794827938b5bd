"""The page on a bank: what is planted in a bank is found on it, and it stands alone."""

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_scene
from pages import Reader
from scipy import stats
from test_ablation_report import run_folder
from torch import Tensor

from hsiaug.datasets import SyntheticBank, write_bank
from hsiaug.metrics.values import Value, spectra_measure, with_intervals
from hsiaug.quality import Candidate, RatioSearch, Recorded
from hsiaug.quality.inspection import inspect_bank, read_compared
from hsiaug.report.html import Picture
from hsiaug.report.page import _warnings, page_file, write_page
from hsiaug.report.page_ratio import ratio_section
from hsiaug.samples import LeakageError, Provenance, SampleSpec, SpecMismatchError
from hsiaug.scenes import BlockSplit, Scene, Split
from hsiaug.systems import TrainingData
from hsiaug.tasks.base import thinned
from hsiaug.trainers import fit_generator, training_data

NAMES = {1: '<u>&', 2: 'cost $x$ of $y$', 3: 'water'}


class Held:
    """Samples that are there already."""

    def __init__(self, batch: dict[str, Tensor], spec: SampleSpec, provenance: Provenance | None) -> None:
        self.data, self.spec, self.provenance = batch, spec, provenance

    def __len__(self) -> int:
        return len(self.data['image'])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[index] for key, value in self.data.items()}


def drawn(kind: str, data: TrainingData, n: int, **settings: object) -> dict[str, Tensor]:
    batch = fit_generator(kind, data, settings, 0).sample(n, seed=0)
    return {key: value.clone() for key, value in batch.items() if key in ('image', 'label', 'mask')}


# --- spectra ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def scene() -> Scene:
    return replace(make_scene(48, 40), class_names=NAMES)


@pytest.fixture(scope='module')
def split(scene: Scene) -> Split:
    return BlockSplit(block=8, per_class=30)(scene, 0)


@pytest.fixture(scope='module')
def bank(scene: Scene, split: Split, tmp_path_factory: pytest.TempPathFactory) -> SyntheticBank:
    """Gaussian spectra, among them copies of training spectra, one too bright, one with a wrong label."""
    data = training_data(scene, split)
    batch = drawn('gaussian', data, 240)
    for row, copied in ((5, 0), (17, 9), (18, 9)):
        batch['image'][row], batch['label'][row] = data.x[copied], data.y[copied]
    batch['image'][40] *= 4
    batch['label'][60] = (batch['label'][60] + 1) % 3
    held = Held(batch, data.spec, data.provenance)
    return write_bank(held, None, tmp_path_factory.mktemp('banks') / 'a <u>"&" bank')  # type: ignore[arg-type]


@pytest.fixture(scope='module')
def page(bank: SyntheticBank, scene: Scene, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    run = run_folder(tmp_path_factory.mktemp('run'))
    path, overview = write_page(inspect_bank(bank, scene, split), ratio=ratio_section(run))
    assert path == bank.root.parent / 'a <u>"&" bank_evaluation.html'
    assert [name for name, _ in overview][:2] == ['rejected by gates', 'memorised']
    return Reader(path.read_text())


def test_the_page_stands_alone_and_escapes_what_it_is_told(page: Reader, bank: SyntheticBank) -> None:
    text = (bank.root.parent / 'a <u>"&" bank_evaluation.html').read_text()
    assert page.open == []
    assert len(page.loaded) > 10
    assert all(source.startswith('data:image/png;base64,iVBOR') for source in page.loaded)
    assert not re.search(r'url\(|@import|<script|<link|https?:', text)
    assert 'a &lt;u&gt;' in text
    assert '&lt;u&gt;&amp;' in text
    assert 'u' not in page.tags
    assert 'name="viewport"' in text
    order = ['What was compared', 'Samples', 'Spectra by class', 'Class balance', 'Rejected samples',
             'Memorised samples', 'Fidelity', 'Coverage of real modes', 'The ratio', 'How it was measured']  # fmt: skip
    assert [name for name in page.sections if name] == order


def test_copies_are_shown_beside_what_they_copy(page: Reader, scene: Scene, split: Split) -> None:
    text = page.sections['Memorised samples']
    assert 'Exact copies: 3.' in text
    assert 'Nominally, 5.0 % of real samples from other places are that close' in ' '.join(text.split())
    for sample, copied in ((5, 0), (17, 9)):
        row, column = divmod(int(split.train[copied]), scene.shape[1])
        card = page.card('Memorised samples', sample)
        assert 'distance 0, an exact copy' in card
        assert f'pixel at row {row}, column {column}' in card
    assert not page.card('Memorised samples', 18)  # the same training sample again


def test_rejected_samples_have_their_reason(page: Reader) -> None:
    bright = page.card('Rejected samples', 40)
    assert 'range: values outside the range of real samples' in bright
    assert float(re.search(r'\(\+([\d.]+) standard deviations', bright)[1]) > 2  # type: ignore[index]
    assert 'agreement: labels or masks that do not match the image' in page.card('Rejected samples', 60)
    rejected, share, _, nominal, _ = page.row('Rejected samples', 'novelty: copies of training samples')
    assert int(rejected) >= 3
    assert share == f'{100 * int(rejected) / 240:.1f} %'
    assert nominal == '5.0 %'


def test_the_reader_learns_what_was_used(page: Reader, split: Split) -> None:
    text = page.sections['What was compared']
    assert f'{len(split.train)} samples, and {len(split.val)} for validation' in text
    assert f'{len(split.test)} of {len(split.test)} test samples' in text
    assert split.fingerprint in text
    assert 'A <study> & more' in page.sections['The ratio']
    assert 'Significantly above real only' in page.sections['The ratio']


def test_a_bank_of_another_unit_is_named(bank: SyntheticBank, scene: Scene, split: Split) -> None:
    scaled = Scene('x', scene.cube, scene.labels, scene.class_names, scene.wavelengths, scale=1e-4 * scene.scale)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read_compared(bank, scene, split)
    with pytest.warns(
        UserWarning, match='differ by orders of magnitude: .* same unit, or the comparison means nothing'
    ):
        read_compared(bank, scaled, split)


def test_fidelity_and_coverage_are_those_of_held_out_samples(
    page: Reader, bank: SyntheticBank, scene: Scene, split: Split
) -> None:
    parts = read_compared(bank, scene, split)
    train, test, fake = (thinned((side['image'], side['label']), 200) for side in parts.sides().values())
    assert len(fake[0]) == 240
    measure = spectra_measure(train, 3)
    expected = measure(test, fake)['spectral angle between class means (mSAD, radians)']
    name = 'spectral angle between class means (mSAD, radians)'
    value, interval, real, ideal = page.row('Fidelity', name)
    assert (value, real, ideal) == (f'{expected.synthetic:.4f}', f'{expected.real:.4f}', '0')
    low, high = (float(end) for end in interval.split(' to '))
    assert low <= float(value) <= high
    assert measure(test, test)[name].synthetic == pytest.approx(0, abs=1e-6)
    assert measure(test, train)[name].synthetic == pytest.approx(expected.real)
    shares = page.row('Coverage of real modes', 'all classes')
    assert 0 < int(shares[0].split()[0]) <= 100


def test_a_generator_that_saw_the_held_out_part_is_refused(
    bank: SyntheticBank, scene: Scene, split: Split, tmp_path: Path
) -> None:
    other = BlockSplit(block=8, per_class=30)(scene, 1)
    with pytest.raises(LeakageError, match='evaluation pixels'):
        inspect_bank(bank, scene, other)
    strangers = make_scene(48, 40, bands=9)
    with pytest.raises(SpecMismatchError, match='bands'):
        inspect_bank(bank, strangers, BlockSplit(block=8, per_class=30)(strangers))
    with pytest.raises(FileNotFoundError, match='no folder'):
        page_file(bank, tmp_path / 'nowhere' / 'page.html')
    with pytest.raises(ValueError, match='count must be at least 1'):
        inspect_bank(bank, scene, split, count=0)


def test_what_is_not_known_of_the_source_is_said(scene: Scene, split: Split, tmp_path: Path) -> None:
    data = training_data(scene, split)
    batch = drawn('gaussian', data, 60)
    elsewhere = make_scene(48, 40, seed=3)
    footprint = BlockSplit(block=8, per_class=30)(elsewhere, 0).footprint()
    fewer = replace(split, train=split.train[:40])
    cases = {
        'not known which pixels': None,
        'trained on another scene': Provenance('0', 0, {}, 'x', footprint),
        f'trained on split {fewer.fingerprint}, but this is split': Provenance(
            '0', 0, {}, fewer.fingerprint, fewer.footprint()
        ),
    }
    for number, (said, provenance) in enumerate(cases.items()):
        source = Held(batch, data.spec, provenance)
        bank = write_bank(source, None, tmp_path / str(number))  # type: ignore[arg-type]
        assert any(said in warning for warning in _warnings(read_compared(bank, scene, split), gates=True))
    path, _ = write_page(inspect_bank(SyntheticBank(tmp_path / '0'), scene, split, gates=False, count=50))
    text = path.read_text()
    assert 'not known which pixels' in text
    assert 'Gates were skipped' in text
    assert '50 of them, evenly spaced' in text
    assert 'Memorised samples' not in text


# --- intervals --------------------------------------------------------------------------------------------------------


def test_intervals_are_those_of_the_jackknife() -> None:
    def mean(test: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]) -> dict[str, Value]:
        return {'mean': Value(float(fake[0].mean() - test[0].mean()), 0.0), 'few': Value(float('nan'), 0.0)}

    rng = torch.Generator().manual_seed(0)
    held, zeros = 0, torch.zeros(40, dtype=torch.int64)
    for _ in range(300):
        test, fake = (x.double() for x in torch.randn(2, 40, generator=rng))
        found = with_intervals(mean, (test, zeros), (fake + 5, zeros), 5)
        assert found['few'].interval is None
        low, high = found['mean'].interval or (0, 0)
        held += low <= 5 <= high
    assert 0.91 <= held / 300 <= 0.98
    # By hand: of a mean, leaving parts out in turn has the error of a mean of the five parts.
    rng = torch.Generator().manual_seed(0)
    deal = [torch.randperm(40, generator=rng) % 5 for _ in range(2)][1]  # the first is that of the test samples
    parts = np.array([fake[deal == k].mean().item() for k in range(5)])
    alone = with_intervals(
        lambda _, side: {'mean': Value(float(side[0].mean()), 0)}, (test, zeros), (fake + 5, zeros), 5
    )
    half = stats.t.ppf(0.975, 4) * parts.std(ddof=1) / np.sqrt(5)
    centre = float(fake.mean()) + 5
    assert alone['mean'].interval == pytest.approx((centre - half, centre + half))
    assert with_intervals(mean, (test[:9], zeros[:9]), (fake, zeros), 5)['mean'].interval is None


# --- the ratio --------------------------------------------------------------------------------------------------------


class Trial:
    """Ratio 1 is better by 0.1, ratio 2 worse by 0.1, with noise that the fold and seed make."""

    identity, cost = 'a scene', 1.0

    def __call__(self, candidate: Candidate, fold: int, seed: int) -> float:
        noise = 0.01 * (fold + seed % 3) * candidate.ratio
        return 0.5 + {0: 0.0, 1: 0.1, 2: -0.1}[int(candidate.ratio)] + noise


def test_a_search_is_drawn_from_either_record(tmp_path: Path) -> None:
    search = RatioSearch((1.0, 2.0), folds=3, trials=3, first=3)
    choice = search(Recorded(Trial(), tmp_path / 'scores.jsonl'))
    (tmp_path / 'choice.json').write_text(json.dumps(choice.to_dict()))
    with (tmp_path / 'scores.jsonl').open('a') as file:
        file.write('{"trial": "torn')
    sections = [ratio_section(tmp_path / name) for name in ('choice.json', 'scores.jsonl')]
    expected = {f'{s.candidate.ratio:g}': (f'{s.mean:+.4f}', f'{s.standard_error:.4f}') for s in choice.standings}
    for section in sections:
        _, table, figure = section.parts
        assert {row[0]: row[2:] for row in table.rows} == expected  # type: ignore[union-attr]
        assert isinstance(figure, Picture)
    assert 'Chosen: ratio 1' in str(sections[0].parts[0])
    (tmp_path / 'other.json').write_text('{"a": 1}')
    (tmp_path / 'binary').write_text('no JSON')
    for name in ('other.json', 'binary'):
        with pytest.raises(ValueError, match='is not a record of a ratio search'):
            ratio_section(tmp_path / name)
    with pytest.raises(FileNotFoundError, match='neither the run folder'):
        ratio_section(tmp_path / 'nowhere')
