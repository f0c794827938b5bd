"""One page on a bank for a human reader: its content, its faults, and how near it comes to real data."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

from ..datasets import SampleSplit, SyntheticBank
from ..metrics.values import TITLES
from ..quality.inspection import PARTS, BankFidelity, Compared, Covered, Inspection, Review
from ..samples import SampleSpec
from ..seen import same_scene
from ..tasks import one_date
from .bank import next_to
from .fidelity_text import format_number
from .html import Picture, Section, Table, write_evaluation_page
from .page_gates import Drawer, gates_section, novelty_section, percent
from .samples import as_images, plot_class_profiles, plot_class_shares, plot_samples

_PICTURES, _PANELS = 6, 12


MARK = b'<meta name="generator" content="hsiaug">'
"""Near the beginning of every page."""


def page_file(bank: SyntheticBank, out: Path | None = None) -> Path:
    """The file of a page; ``<bank>_evaluation.html`` next to the bank if None."""
    path = next_to(bank.root, '_evaluation.html') if out is None else out
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f'no folder {path.parent} for the page; make it, or give another out')
    if out is not None and path.is_file() and MARK not in path.read_bytes()[:1000]:
        raise FileExistsError(f'{path} exists and is not a page of hsiaug; give another out')
    return path


def write_page(
    found: Inspection, out: Path | None = None, ratio: Section | None = None
) -> tuple[Path, list[tuple[str, str]]]:
    """Write the page on a bank: one HTML file with its pictures inside, which loads nothing from the network.

    ``ratio`` is the curve of a study or a ratio search. Returns the file, and the main figures, which stand at its top.
    """
    compared = found.compared
    path = page_file(compared.bank, out)
    # A dollar sign in a name is not a formula.
    with matplotlib.rc_context({'text.parse_math': False}):
        sections = [*_looks(compared), *_gates(found)]
    sections += [_fidelity(found.fidelity), _coverage(found.coverage, compared.spec)]
    overview, training = _overview(found), 'unknown'
    if (known := compared.bank.provenance) is not None:
        training = json.dumps({'hsiaug': known.version, 'seed': known.seed, **known.training}, default=str)
    write_evaluation_page(
        path, f'{next_to(compared.bank.root, "").name}: synthetic and real samples',
        _warnings(compared, found.gates is not None), _facts(compared), [*sections, *filter(None, [ratio])],
        training, overview,
    )  # fmt: skip
    return path, overview


def _overview(found: Inspection) -> list[tuple[str, str]]:
    """The main figures."""
    lines = []
    if isinstance(found.gates, Review):
        fake, real = found.gates.rejected
        lines.append(('rejected by gates', f'{100 * fake:.1f} % (held-out real samples: {100 * real:.1f} %)'))
        if (memorised := found.gates.memorised) is not None:
            share = float(found.gates.on_fake.rejected[memorised.gate.name].double().mean())
            nominal = f'nominal false alarms: {100 * memorised.gate.false_alarm:.0f} %'
            lines.append(('memorised', f'{100 * share:.1f} % ({nominal})'))
    if not isinstance(found.fidelity, str):
        values = found.fidelity.values
        both = (TITLES['fid_image'][0], TITLES['alignment'][0])
        names = [name for name in values if name.removeprefix('both dates: ') in both] or list(values)[:2]
        for name in names:
            value, interval = values[name].value, values[name].interval
            shown = format_number(value.synthetic) + ('' if interval is None else f', {_interval(interval)}')
            lines.append((name, f'{shown} (real: {format_number(value.real)})'))
    if not isinstance(found.coverage, str):
        shares = [f'{100 * side["coverage"]:.0f} %' for side in (found.coverage.synthetic, found.coverage.training)]
        lines.append(('held-out real samples covered', f'{shares[0]} (by training samples: {shares[1]})'))
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
        ('inspected', f'{len(parts.rows)} of them, evenly spaced'),
        ('samples', f'{spec.kind}, {spec.bands} bands{size}, {spec.num_classes} classes'),
        ('real scene', f'{parts.scene.name}, split {split.fingerprint} by {split.strategy.get("name", "?")} '
         f'{json.dumps(strategy, default=str)}, seed {split.seed}'),
        *([('seen by the generator', parts.seen)] if isinstance(split, SampleSplit) else []),
        ('training part', f'{len(parts.data.x)} samples, and {len(parts.data.val_x)} for validation; gates and '
         'encoders have learnt from these only'),
        ('held-out part', f'{test} of {parts.held_out} test samples, not seen by gates or encoders; the bank is '
         'compared with these'),
    ]  # fmt: skip


def _warnings(parts: Compared, gates: bool) -> list[str]:
    """What a reader must know before all else."""
    found, provenance = [], parts.bank.provenance
    if isinstance(parts.split, SampleSplit):
        if provenance is not None and provenance.split != parts.split.fingerprint:
            found.append(
                f'The generator was trained on split {provenance.split}, but this is split {parts.split.fingerprint}: '
                'it is compared with another training part than its own.'
            )
    elif provenance is None or provenance.seen is None:
        found.append(
            'It is not known which pixels the source of this bank has seen. If it has seen the held-out part, the bank '
            'looks better on this page than it is.'
        )
    elif not same_scene(provenance.seen.scene, parts.split.scene):
        found.append(
            f'The generator was trained on another scene ({provenance.seen.scene}): whether it has seen held-out '
            'pixels can only be checked within its own scene.'
        )
    elif provenance.split != parts.split.fingerprint:
        found.append(
            f'The generator was trained on split {provenance.split}, but this is split {parts.split.fingerprint}. It '
            'has seen none of the held-out pixels, but is compared with another training part than its own.'
        )
    if not gates:
        found.append('Gates were skipped: the bank was not checked for impossible or memorised samples.')
    return found


# --- sections ---------------------------------------------------------------------------------------------------------


def _looks(parts: Compared) -> list[Section]:
    """Sample grids, spectra by class, and class balance; real samples are held-out ones."""
    spec, plain = parts.spec, one_date(parts.spec)
    _, test, fake = parts.pairs()
    number = min(spec.num_classes, _PANELS) if spec.size is None else _PICTURES
    compared = {name: side for name, side in parts.sides().items() if name != 'real, training'}
    masks = {name: mask for name, (_, mask) in as_images(parts.sides(), spec).items()}
    of_date = [f', date {date + 1}' if spec.dates == 2 else '' for date in range(spec.dates)]
    return [
        Section('Samples', [
            'Held-out real samples and synthetic samples, evenly spaced in both.',
            Picture.of_figure(plot_samples(test, fake, spec, number), 'real and synthetic samples'),
        ]),
        Section('Spectra by class', [
            'Median, and the range of the middle 80 % of all spectra of a class.',
            *(Picture.of_figure(plot_class_profiles(as_images(compared, spec, date), plain), f'spectra by class{said}')
              for date, said in enumerate(of_date)),
        ]),
        Section('Class balance', [
            f'Share of each class in all {"spectra" if spec.size is None else "pixels"}.',
            Picture.of_figure(plot_class_shares(masks, spec), 'class shares'),
        ]),
    ]  # fmt: skip


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


def _fidelity(found: BankFidelity | str) -> Section:
    if isinstance(found, str):
        return Section('Fidelity', [f'Not measured: {found}.'])
    notes = [
        'Synthetic samples compared with held-out real ones; the column “real” compares real training samples instead, '
        'the best that a generator can achieve. The 95 % intervals come from leaving out each of '
        f'{PARTS} parts of the synthetic and held-out samples in turn (delete-a-group jackknife). They assume '
        'independent samples and this generator; they do not show how another training would have turned out, '
        'nor whether mixing in helps: hsiaug ratio and hsiaug ablate measure that.'
    ]
    notes += [
        f'{what}: {fake} synthetic, {train} training and {test} held-out ones, at most {found.per_class} per class '
        'and side.'
        for what, (train, test, fake) in found.thinned.items()
    ]
    if found.frechet:
        notes.append(
            'Fréchet distances are biased upwards, more so with fewer samples: compare them with those of real '
            'samples, which are computed from equal numbers.'
        )
    rows = [
        (name, format_number(v.synthetic), _interval(one.interval), format_number(v.real), v.ideal)
        for name, one in found.values.items()
        for v in (one.value,)
    ]
    return Section('Fidelity', [*notes, Table(('measure', 'synthetic', '95 % interval', 'real', 'ideal'), rows)])


def _interval(interval: tuple[float, float] | None) -> str:
    return '–' if interval is None else ' to '.join(format_number(end) if end else '0' for end in interval)


def _coverage(found: Covered | str, spec: SampleSpec) -> Section:
    if isinstance(found, str):
        return Section('Coverage of real modes', [f'Not measured: {found}.'])
    features = 'the spectra themselves'
    if spec.size:
        features = 'mean and standard deviation of each band' + (', class shares' if spec.target_key == 'mask' else '')
    note = (
        f'Share of {found.held_out} held-out real samples with one of {found.count} synthetic samples within reach, '
        f'the distance to their {found.k}th real neighbour (Naeem et al. 2020); and the same share for {found.count} '
        f'training samples. Features: {features}, in up to 16 principal components.'
    )
    sides = (found.synthetic, found.training)
    rows = [('all classes', *(percent(side['coverage'], 0) for side in sides))]
    rows += [(name, *(percent(side['by_class'][name], 0) for side in sides)) for name in spec.classes]
    return Section('Coverage of real modes', [note, Table(('class', 'synthetic', 'training'), rows)])
