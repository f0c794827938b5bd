"""One page on a bank that a person reads: what is in it, what is wrong with it, and how near it comes to real data."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from tqdm.auto import tqdm

from ..ablation.runner import environment
from ..datasets import SyntheticBank
from ..datasets.preview import preview_grid
from ..samples import same_scene
from ..scenes import Scene, Split
from ..scenes.patches import PatchSplit
from .bank import beside
from .html import Picture, Section, replace_file, template
from .page_cards import Drawer
from .page_fidelity import Measured, coverage_section, fidelity_section, format_interval
from .page_gates import Review, gates_section, novelty_section, review
from .page_parts import Parts, as_pairs, pair_spec, read_parts
from .page_ratio import ratio_section
from .patch_evaluation import ROWS, format_number
from .patches import plot_class_profiles, plot_class_shares, spread_first

_PICTURES, _PANELS = 6, 12


@dataclass
class Page:
    """A page being put together: its sections, and what stands at its top."""

    sections: list[Section]
    glance: list[tuple[str, str]]


def write_page(
    bank: SyntheticBank,
    scene: Scene,
    split: Split | PatchSplit,
    out: Path | None = None,
    count: int | None = None,
    per_class: int = 200,
    gates: bool = True,
    study: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Path, list[tuple[str, str]]]:
    """Write the page on a bank: one HTML file that holds its pictures itself and asks nothing of the network.

    Args:
        bank: the bank.
        scene: the real scene.
        split: its split: gates learn from the training part, and the bank is compared with the test part.
        out: the file; ``<bank>_evaluation.html`` beside the bank if None.
        count: samples at most that are looked at; see :data:`~hsiaug.report.page_parts.LOOKED_AT`.
        per_class: spectra of a class and side at most that fidelity is measured with.
        gates: whether to fit gates, which takes longest, and to say what they reject and what is memorised.
        study: a study or a ratio search, whose curve is shown; see :func:`~hsiaug.report.page_ratio.ratio_section`.
        seed: of gates, encoders and whatever is drawn at random.
        progress: show a progress bar.

    Returns:
        the file, and what stands at its top.

    Raises:
        LeakageError: if the bank's generator has seen test pixels of the split.
        SpecMismatchError: if real and synthetic samples do not fit together.
        FileNotFoundError: if there is no study, or no folder for the file.
        ValueError: if a study or a ratio search cannot be read.
    """
    path = beside(bank.root, '_evaluation.html') if out is None else out
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f'no folder {path.parent} for the page; make it, or give another out')
    curve = None if study is None else ratio_section(study)  # mistakes first
    parts = read_parts(bank, scene, split, count)
    page, drawer = Page([], []), Drawer(parts.spec, parts.train)
    steps: dict[str, Callable[[], None]] = {
        'samples': lambda: page.sections.extend(_looks(parts)),
        'gates': lambda: _gates(page, parts, drawer, seed),
        'fidelity': lambda: _fidelity(page, parts, per_class, seed),
        'coverage': lambda: _coverage(page, parts),
    }
    if not gates:
        del steps['gates']
    # A dollar sign in a name is no formula.
    with matplotlib.rc_context({'text.parse_math': False}), tqdm(steps, unit='step', disable=not progress) as bar:
        for name in bar:
            bar.set_description(name)
            steps[name]()
    if curve is not None:
        page.sections.append(curve)
    content = {
        'title': f'{beside(bank.root, "").name}: synthetic samples beside real ones',
        'warnings': _warnings(parts, gates),
        'facts': _facts(parts),
        'glance': page.glance,
        'sections': page.sections,
        'training': _training(bank),
        'environment': environment(),
        'command': shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    replace_file(path, template('evaluation.html.j2').render(**content).encode(errors='replace'))
    return path, page.glance


# --- what was compared ------------------------------------------------------------------------------------------------


def _facts(parts: Parts) -> list[tuple[str, str]]:
    bank, split, test = parts.bank, parts.split, len(parts.test['image'])
    strategy = {key: value for key, value in split.strategy.items() if key != 'name'}
    spec = parts.spec
    size = f', {spec.size[0]} × {spec.size[1]} pixels' if spec.size else ''
    return [
        ('bank', f'{beside(bank.root, "").name}: {len(bank)} samples of {bank.record["source"]["type"]}'
         + (f', seed {bank.seed}' if bank.seed is not None else '')
         + (f', labels {bank.labels_policy}' if bank.labels_policy is not None else '')),
        ('looked at', f'{len(parts.rows)} of them, spread evenly'),
        ('samples', f'{spec.kind}, {spec.bands} bands{size}, {spec.num_classes} classes'),
        ('real scene', f'{parts.scene.name}, split {split.fingerprint} by {split.strategy.get("name", "?")} '
         f'{json.dumps(strategy, default=str)}, seed {split.seed}'),
        ('training part', f'{len(parts.data.x)} samples and {len(parts.data.val_x)} of validation: what judges '
         'here (gates, encoders) has learnt from these alone'),
        ('held-out part', f'{test} of {parts.held_out} test samples, which no judge has seen: the bank is compared '
         'with these'),
    ]  # fmt: skip


def _warnings(parts: Parts, gates: bool) -> list[str]:
    """What a reader must know before all else."""
    found, provenance = [], parts.bank.provenance
    if provenance is None or provenance.seen is None:
        found.append(
            'It is not known which pixels the source of this bank has seen. If it has seen the held-out part, the bank '
            'looks better here than it is.'
        )
    elif not same_scene(provenance.seen.scene, parts.split.scene):
        found.append(
            f'The generator was trained on another scene ({provenance.seen.scene}): that it has seen none of the '
            'held-out pixels can be said of its own scene only.'
        )
    elif provenance.split != parts.split.fingerprint:
        found.append(
            f'The generator was trained on split {provenance.split}, this is split {parts.split.fingerprint}. It has '
            'seen none of the held-out pixels, but is compared with another training part than its own.'
        )
    if not gates:
        found.append('Gates were left out: neither impossible nor memorised samples were looked for.')
    return found


def _training(bank: SyntheticBank) -> str:
    if bank.provenance is None:
        return 'unknown'
    known = {'hsiaug': bank.provenance.version, 'seed': bank.provenance.seed, **bank.provenance.training}
    return json.dumps(known, default=str)


# --- sections ---------------------------------------------------------------------------------------------------------


def _looks(parts: Parts) -> list[Section]:
    """Sample grids, spectra by class, and class balance; real samples are held-out ones."""
    spec, sides = parts.spec, parts.sides()
    grid = Section('Samples', ['Real samples, of the held-out part, and synthetic ones, spread evenly over both.'])
    number = min(spec.num_classes, _PANELS) if spec.kind == 'spectrum' else _PICTURES
    shown = [spread_first(sides[name], _PICTURES) for name in ('real, test', 'synthetic')]
    figure = preview_grid(shown[0], shown[1], spec, number)
    grid.figures.append(Picture.of_figure(figure, 'real and synthetic samples'))
    bands = Section('Spectra by class', ['Median, and the band that holds the middle 80 % of all spectra of a class.'])
    plain = pair_spec(spec)
    for date in range(2 if spec.kind == 'change' else 1):
        pairs = {name: as_pairs(sides[name], spec, date) for name in ('real, test', 'synthetic')}
        of_date = f', date {date + 1}' if spec.kind == 'change' else ''
        bands.figures.append(Picture.of_figure(plot_class_profiles(pairs, plain), f'spectra by class{of_date}'))
    balance = Section(
        'Class balance', ['Share of each class in all ' + ('spectra.' if spec.size is None else 'pixels.')]
    )
    masks = {name: as_pairs(batch, spec)[1] for name, batch in sides.items()}
    balance.figures.append(Picture.of_figure(plot_class_shares(masks, plain), 'class shares'))
    return [grid, bands, balance]


def _gates(page: Page, parts: Parts, drawer: Drawer, seed: int) -> None:
    found = review(parts, seed)
    if not isinstance(found, Review):
        page.sections.append(Section('Rejected samples', [f'Not judged by {n}: {why}.' for n, why in found.items()]))
        return
    page.sections.append(gates_section(parts, found, drawer))
    fake, real = found.rejected
    page.glance.append(('rejected by gates', f'{100 * fake:.1f} % (of held-out real samples {100 * real:.1f} %)'))
    if (gate := found.novelty) is not None:
        page.sections.append(novelty_section(parts, found, gate, drawer))
        share = float(found.verdict.rejected[gate.name].double().mean())
        nominal = f'nominal false alarms {100 * gate.false_alarm:.0f} %'
        page.glance.append(('memorised', f'{100 * share:.1f} % ({nominal})'))


def _fidelity(page: Page, parts: Parts, per_class: int, seed: int) -> None:
    try:
        section, found = fidelity_section(parts, per_class, seed)
    except ValueError as error:  # a class or all but one sample may be missing: the rest of the page stands
        page.sections.append(Section('Fidelity', [f'Not measured: {error}.']))
        return
    page.sections.append(section)
    both = (ROWS['fid_image'][0], ROWS['alignment'][0])
    names = [name for name in found if name.removeprefix('both dates: ') in both] or list(found)[:2]
    page.glance += [(name, _in_short(found[name])) for name in names]


def _in_short(one: Measured) -> str:
    interval = '' if one.interval is None else f', {format_interval(one.interval)}'
    return f'{format_number(one.value.synthetic)}{interval} (real {format_number(one.value.real)})'


def _coverage(page: Page, parts: Parts) -> None:
    try:
        section, covered = coverage_section(parts)
    except ValueError as error:
        page.sections.append(Section('Coverage of real modes', [f'Not measured: {error}.']))
        return
    page.sections.append(section)
    page.glance.append(
        ('held-out real samples covered', f'{100 * covered[0]:.0f} % (by training samples {100 * covered[1]:.0f} %)')
    )
