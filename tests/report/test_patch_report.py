import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hsiaug.datasets.patches import PatchDataset
from hsiaug.metrics.patches import patch_fidelity
from hsiaug.report.evaluation import write_evaluation
from hsiaug.report.fidelity_text import patch_markdown
from hsiaug.report.samples import plot_class_profiles, plot_class_shares, plot_cooccurrence, plot_pairs
from hsiaug.samples import LeakageError, Provenance, SampleSpec, SpecMismatchError
from hsiaug.scenes import SimulatedScene
from hsiaug.scenes.patches import PatchSplit, PatchSplitter
from hsiaug.systems import Generator
from hsiaug.tasks import task_of

IGNORE = 255
WAVELENGTHS = (400.0, 450.0, 500.0, 550.0, 900.0, 950.0)  # bands between 550 and 900 nm were removed
NAMES = ('grass', 'a $x$ | <b> with a name longer than any label', 'nowhere')
SPEC = SampleSpec(
    'segmentation', 6, NAMES, wavelengths=WAVELENGTHS, size=(8, 8), ignore_index=IGNORE, unit='reflectance'
)
Pair = tuple[Tensor, Tensor]


def drawn(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return buffer.getvalue()


def pairs(n: int, seed: int) -> Pair:
    """Class 0 above a row of ignored pixels above class 1; a third class never occurs."""
    rng = torch.Generator().manual_seed(seed)
    mask = torch.zeros(n, 8, 8, dtype=torch.int64)
    mask[:, 2], mask[:, 3:] = IGNORE, 1
    return torch.rand(n, 6, 8, 8, generator=rng) + mask.clamp(max=1)[:, None], mask


REAL, FAKE = pairs(10, 0), pairs(6, 1)
MASKS = {'real, training': REAL[1], 'real, test': REAL[1][:2], 'synthetic': FAKE[1].where(FAKE[1] != 1, 0)}


def test_class_shares_are_those_of_counting_pixels() -> None:
    figure = plot_class_shares(MASKS, SPEC)
    axes = figure.axes[0]
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    expected = [[100 * 2 / 7, 100 * 5 / 7, 0]] * 2 + [[100, 0, 0]]
    np.testing.assert_allclose(widths, expected, rtol=1e-6)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(MASKS)
    assert drawn(figure)


def test_cooccurrence_panels_share_a_scale() -> None:
    figure = plot_cooccurrence(MASKS, SPEC)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == list(MASKS)
    tables = [np.ma.filled(axes.images[0].get_array(), 0) for axes in panels]
    # 14 + 8 pairs of class 0 within and between its rows, 35 + 32 of class 1; ignored pixels part the two.
    np.testing.assert_allclose(tables[0], 100 * np.diag([22, 67, 0]) / 89, rtol=1e-6)
    np.testing.assert_allclose(tables[2], 100 * np.diag([1, 0, 0]))
    assert len({axes.images[0].norm.vmax for axes in panels}) == 1
    assert [text.get_text() for text in panels[0].texts] == ['25', '75']
    assert drawn(figure)
    nothing = torch.full((2, 8, 8), IGNORE)
    assert drawn(plot_cooccurrence({'synthetic': nothing}, SPEC))
    assert drawn(plot_class_shares({'synthetic': nothing}, SPEC))


def test_profiles_hold_the_middle_of_each_class() -> None:
    figure = plot_class_profiles({'real, test': REAL, 'synthetic': (FAKE[0] + 1, FAKE[1])}, SPEC)
    axes = figure.axes[0]
    mine = REAL[0].movedim(1, -1)[REAL[1] == 0].numpy()
    median, fake = (np.asarray(line.get_ydata()) for line in axes.lines)
    np.testing.assert_allclose(median, np.insert(np.median(mine, axis=0), 4, np.nan), rtol=1e-5)
    assert np.nanmin(fake - median) > 0.7
    edges = axes.collections[0].get_paths()[0].vertices[:, 1]
    low, high = np.quantile(mine[:, :4], [0.1, 0.9], axis=0)  # the first run of bands
    assert (edges.min(), edges.max()) == pytest.approx((low.min(), high.max()), rel=1e-5)
    assert [text.get_text() for text in figure.axes[2].texts] == ['no pixels']
    assert figure.get_supxlabel() == 'wavelength (nm)'
    assert drawn(figure)


def test_pairs_are_spread_over_the_set() -> None:
    image, mask = REAL
    mask = mask.clone()
    mask[9] = 2  # only the last pair holds the third class
    figure = plot_pairs((image, mask), FAKE, SPEC, count=3)
    names = [text.get_text() for part in figure.subfigs for legend in part.legends for text in legend.get_texts()]
    assert 'nowhere' in names
    assert drawn(figure)


# --- the whole report -------------------------------------------------------------------------------------------------


class Replay(Generator):
    """Training pairs again, upside down and brighter; with ``shift``, masks beside their images."""

    type_name = 'replay'

    def __init__(self, data: PatchDataset, split: PatchSplit, shift: int = 0) -> None:
        super().__init__(data.spec)
        self.data, self.shift = data, shift
        self.provenance = Provenance('0', 0, {}, split.fingerprint, split.footprint())

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(self.data), (len(labels),), generator=rng)
        image = 1.05 * self.data.image[rows].flip(2)
        return {'image': image, 'mask': self.data.mask[rows].flip(1).roll(self.shift, dims=2)}


def evaluate_patches(
    generator: Generator, train: PatchDataset, test: PatchDataset, out: Path, count: int, encoder: Any = None
) -> str:
    found = task_of(generator).evaluate(generator, train, test, count, encoder=encoder)
    return write_evaluation(found, generator.card(), out)


@pytest.fixture(scope='module')
def scene() -> SimulatedScene:
    return SimulatedScene(48, 48, np.linspace(400, 2400, 12), classes=4, patch=3)


@pytest.fixture(scope='module')
def split(scene: SimulatedScene) -> PatchSplit:
    return PatchSplitter(size=8, stride=4)(scene, 0)


@pytest.fixture(scope='module')
def parts(scene: SimulatedScene, split: PatchSplit) -> tuple[PatchDataset, PatchDataset]:
    return PatchDataset.from_scene(scene, split, 'train'), PatchDataset.from_scene(scene, split, 'test')


def test_report_of_a_generator(parts: tuple[PatchDataset, PatchDataset], split: PatchSplit, tmp_path: Path) -> None:
    train, test = parts
    text = evaluate_patches(Replay(train, split), train, test, tmp_path / 'out', count=50)
    out = tmp_path / 'out'
    written = {'pairs', 'class_shares', 'cooccurrence', 'class_profiles'}
    assert {file.stem for file in (out / 'figures').iterdir()} == written
    assert all(file.read_bytes().startswith(b'\x89PNG') for file in (out / 'figures').iterdir())
    assert (out / 'fidelity.md').read_text() == text
    card = (out / 'README.md').read_text()
    assert card.startswith('# replay')
    assert text in card
    assert all(f'(figures/{name}.png)' in card for name in written)
    assert f'50 synthetic pairs, {len(train)} training and {len(test)} test pairs' in text
    assert f'take {min(50, len(train))} synthetic or training pairs' in text
    rows = {line.split(' | ')[0].strip('| '): line.strip('| ').split(' | ') for line in text.splitlines()}
    assert float(rows['alignment of mask and image'][1]) > 0.8
    # Pairs of the training part resemble it more than the test part does.
    _, _, reference, to_train, _ = rows['class shares, total variation']
    assert float(to_train) < float(reference)
    for name in train.spec.classes:
        assert len(rows[name]) == 5
    worse = evaluate_patches(Replay(train, split, shift=3), train, test, tmp_path / 'shifted', count=50)
    line = next(line for line in worse.splitlines() if line.startswith('| alignment'))
    assert float(line.split(' | ')[1]) < float(rows['alignment of mask and image'][1]) - 0.2


def test_an_own_encoder_is_used(parts: tuple[PatchDataset, PatchDataset], split: PatchSplit, tmp_path: Path) -> None:
    train, test = parts
    seen: list[int] = []

    def encoder(image: Tensor) -> Tensor:
        seen.append(len(image))
        return image.mean(dim=(2, 3))[:, :3]

    text = evaluate_patches(Replay(train, split), train, test, tmp_path, count=30, encoder=encoder)
    assert sum(seen) == len(train) + len(test) + 30
    assert '(3 of an image, 24 of a mask)' in text


def test_leaks_and_strangers_are_refused(
    scene: SimulatedScene, parts: tuple[PatchDataset, PatchDataset], split: PatchSplit, tmp_path: Path
) -> None:
    train, test = parts
    other = PatchSplitter(size=8, stride=4)(scene, 1)
    with pytest.raises(LeakageError, match='evaluation pixels'):
        evaluate_patches(Replay(train, other), train, test, tmp_path / 'out', count=10)
    names = PatchDataset(test.image, test.mask, replace(test.spec, classes=('a', 'b', 'c', 'd')), test.split)
    with pytest.raises(SpecMismatchError, match='classes'):
        evaluate_patches(Replay(train, split), train, names, tmp_path / 'out', count=10)
    assert not (tmp_path / 'out').exists()


def test_markdown_states_bias_and_gaps() -> None:
    def encoder(image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3))

    few = REAL[0][:4], REAL[1][:4]
    result = patch_fidelity(REAL, few, FAKE, SPEC, encoder)
    text = patch_markdown(result, SPEC, MASKS)
    assert 'no more pairs than features' in text
    assert '| precision | – | – | 1.00 | 1 |' in text  # six synthetic pairs suffice against training pairs alone
    assert '| nowhere | – | 0.0 | 0.0 | 0.0 |' in text
    assert r'| a $x$ \| &lt;b> with' in text
    assert 'no more pairs' not in patch_markdown(replace(result, compared=500, real_count=500), SPEC, MASKS)
    assert math.isnan(result.msad_per_class[2])
