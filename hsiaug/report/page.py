"""One page on a bank for a human reader: its content, its faults, and how near it comes to real data."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

from ..ablation.environment import command, environment
from ..datasets import SampleSplit, SyntheticBank
from ..datasets.preview import preview_grid
from ..metrics.values import TITLES, Measured
from ..quality.inspection import Compared, Inspection, Review
from ..seen import same_scene
from ..tasks import one_date
from .bank import next_to
from .fidelity_text import format_number
from .html import Picture, Section, replace_file, template
from .page_cards import Drawer
from .page_fidelity import coverage_section, fidelity_section, format_interval
from .page_gates import gates_section, novelty_section
from .patches import plot_class_profiles, plot_class_shares, spread_first

_PICTURES, _PANELS = 6, 12


MARK = b'<meta name="generator" content="hsiaug">'
"""Near the beginning of every page."""


def page_file(bank: SyntheticBank, out: Path | None = None) -> Path:
    """The file of a page; ``<bank>_evaluation.html`` next to the bank if None.

    Raises:
        FileNotFoundError: if there is no folder for it; FileExistsError if it is something else.
    """
    path = next_to(bank.root, '_evaluation.html') if out is None else out
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f'no folder {path.parent} for the page; make it, or give another out')
    if out is not None and path.is_file() and MARK not in path.read_bytes()[:1000]:
        raise FileExistsError(f'{path} exists and is no page of hsiaug; give another out')
    return path


def write_page(
    found: Inspection, out: Path | None = None, ratio: Section | None = None
) -> tuple[Path, list[tuple[str, str]]]:
    """Write the page on a bank: one HTML file with its pictures inside, which loads nothing from the network.

    Args:
        found: what is known of the bank.
        out: the file; see :func:`page_file`.
        ratio: the curve of a study or a ratio search; see :func:`~hsiaug.report.page_ratio.ratio_section`.

    Returns:
        the file, and the main figures, which stand at its top.
    """
    compared = found.compared
    path = page_file(compared.bank, out)
    # A dollar sign in a name is no formula.
    with matplotlib.rc_context({'text.parse_math': False}):
        sections = [*_looks(compared), *_gates(found)]
    sections.append(
        Section('Fidelity', [f'Not measured: {found.fidelity}.'])
        if isinstance(found.fidelity, str)
        else fidelity_section(found.fidelity)
    )
    sections.append(
        Section('Coverage of real modes', [f'Not measured: {found.coverage}.'])
        if isinstance(found.coverage, str)
        else coverage_section(found.coverage, compared.spec)
    )
    overview = _overview(found)
    content = {
        'title': f'{next_to(compared.bank.root, "").name}: synthetic samples and real ones',
        'warnings': _warnings(compared, found.gates is not None),
        'facts': _facts(compared),
        'overview': overview,
        'sections': sections if ratio is None else [*sections, ratio],
        'training': _training(compared.bank),
        'environment': environment(),
        'command': command(),
    }
    replace_file(path, template('evaluation.html.j2').render(**content).encode(errors='replace'))
    return path, overview


def _overview(found: Inspection) -> list[tuple[str, str]]:
    """The main figures."""
    lines = []
    if isinstance(found.gates, Review):
        fake, real = found.gates.rejected
        lines.append(('rejected by gates', f'{100 * fake:.1f} % (of held-out real samples {100 * real:.1f} %)'))
        if (memorised := found.gates.memorised) is not None:
            share = float(found.gates.on_fake.rejected[memorised.gate.name].double().mean())
            nominal = f'nominal false alarms {100 * memorised.gate.false_alarm:.0f} %'
            lines.append(('memorised', f'{100 * share:.1f} % ({nominal})'))
    if not isinstance(found.fidelity, str):
        values = found.fidelity.values
        both = (TITLES['fid_image'][0], TITLES['alignment'][0])
        names = [name for name in values if name.removeprefix('both dates: ') in both] or list(values)[:2]
        lines += [(name, _in_short(values[name])) for name in names]
    if not isinstance(found.coverage, str):
        shares = [f'{100 * side["coverage"]:.0f} %' for side in (found.coverage.synthetic, found.coverage.training)]
        lines.append(('held-out real samples covered', f'{shares[0]} (by training samples {shares[1]})'))
    return lines


# --- what was compared ------------------------------------------------------------------------------------------------


def _facts(parts: Compared) -> list[tuple[str, str]]:
    bank, split, test = parts.bank, parts.split, len(parts.test['image'])
    strategy = {key: value for key, value in split.strategy.items() if key != 'name'}
    spec = parts.spec
    size = f', {spec.size[0]} × {spec.size[1]} pixels' if spec.size else ''
    return [
        ('bank', f'{next_to(bank.root, "").name}: {len(bank)} samples of {bank.record["source"]["type"]}'
         + (f', seed {bank.seed}' if bank.seed is not None else '')
         + (f', labels {bank.labels_policy}' if bank.labels_policy is not None else '')),
        ('looked at', f'{len(parts.rows)} of them, spread evenly'),
        ('samples', f'{spec.kind}, {spec.bands} bands{size}, {spec.num_classes} classes'),
        ('real scene', f'{parts.scene.name}, split {split.fingerprint} by {split.strategy.get("name", "?")} '
         f'{json.dumps(strategy, default=str)}, seed {split.seed}'),
        *([('seen by the generator', parts.seen)] if isinstance(split, SampleSplit) else []),
        ('training part', f'{len(parts.data.x)} samples and {len(parts.data.val_x)} of validation: what judges '
         'here (gates, encoders) has learnt from these alone'),
        ('held-out part', f'{test} of {parts.held_out} test samples, which no judge has seen: the bank is compared '
         'with these'),
    ]  # fmt: skip


def _warnings(parts: Compared, gates: bool) -> list[str]:
    """What a reader must know before all else."""
    found, provenance = [], parts.bank.provenance
    if isinstance(parts.split, SampleSplit):
        if provenance is not None and provenance.split != parts.split.fingerprint:
            found.append(
                f'The generator was trained on split {provenance.split}, this is split {parts.split.fingerprint}: it '
                'is compared with another training part than its own.'
            )
    elif provenance is None or provenance.seen is None:
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


def _looks(parts: Compared) -> list[Section]:
    """Sample grids, spectra by class, and class balance; real samples are held-out ones."""
    spec, sides = parts.spec, parts.sides()
    grid = Section('Samples', ['Real samples, of the held-out part, and synthetic ones, spread evenly over both.'])
    number = min(spec.num_classes, _PANELS) if spec.size is None else _PICTURES
    shown = [spread_first(sides[name], _PICTURES) for name in ('real, test', 'synthetic')]
    figure = preview_grid(shown[0], shown[1], spec, number)
    grid.figures.append(Picture.of_figure(figure, 'real and synthetic samples'))
    bands = Section('Spectra by class', ['Median, and the band that holds the middle 80 % of all spectra of a class.'])
    plain, key = one_date(spec), spec.target_key
    for date in range(spec.dates):
        pairs = {name: parts.task.as_images((sides[name]['image'], sides[name][key]), date)
                 for name in ('real, test', 'synthetic')}  # fmt: skip
        of_date = f', date {date + 1}' if spec.dates == 2 else ''
        bands.figures.append(Picture.of_figure(plot_class_profiles(pairs, plain), f'spectra by class{of_date}'))
    balance = Section(
        'Class balance', ['Share of each class in all ' + ('spectra.' if spec.size is None else 'pixels.')]
    )
    masks = {name: parts.task.as_images((side['image'], side[key]))[1] for name, side in sides.items()}
    balance.figures.append(Picture.of_figure(plot_class_shares(masks, plain), 'class shares'))
    return [grid, bands, balance]


def _gates(found: Inspection) -> list[Section]:
    if found.gates is None:
        return []
    if not isinstance(found.gates, Review):
        return [Section('Rejected samples', [f'Not judged by {n}: {why}.' for n, why in found.gates.items()])]
    drawer = Drawer(found.compared.spec, found.compared.train)
    sections = [gates_section(found.compared, found.gates, drawer)]
    if found.gates.memorised is not None:
        sections.append(novelty_section(found.compared, found.gates, found.gates.memorised, drawer))
    return sections


def _in_short(one: Measured) -> str:
    interval = '' if one.interval is None else f', {format_interval(one.interval)}'
    return f'{format_number(one.value.synthetic)}{interval} (real {format_number(one.value.real)})'
