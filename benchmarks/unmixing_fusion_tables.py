"""Tables 1 and 2 of "Unmixing before Fusion" on real scenes: one line per scene, seed and method, and what they say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from unmixing_fusion_bench import MAKERS, Bench, Effort, K, Method, methods

from hsiaug.ablation import Experiment
from hsiaug.ablation.experiment import markdown_table, means
from hsiaug.ablation.statistics import PairedComparison, holm, paired_comparison
from hsiaug.metrics import frechet_distance, prdc, super_resolution_scores

Row = dict[str, Any]
Group = tuple[str, int]  # scene and seed
MADE = {
    'fid': 'FID', 'recall': 'recall', 'precision': 'precision', 'fid_train': 'FID to training', 'edges': 'edges',
    'parameters': 'parameters', 'seconds': 's a sample',
}  # fmt: skip
RESTORED = {'rmse': 'RMSE', 'psnr': 'PSNR (dB)', 'ssim': 'SSIM', 'sad': 'SAD (deg)'}


@dataclass(frozen=True)
class Cell:
    """One method on one split of one scene, with all settings that its line depends on."""

    scene: str
    seed: int
    method: Method
    kind: Mapping[str, Any] | None
    unmixing: Mapping[str, Any]
    samples: int


def cell(scene: str, seed: int, method: Method, effort: Effort) -> Cell:
    """A method's cell."""
    kind = effort.kinds[method.kind] if method.make in ('fusion', 'code', 'cube') else None
    return Cell(scene, seed, method, kind, effort.unmixing, effort.samples)


@dataclass
class Measure:
    """Measures cells; those of one split share a :class:`Bench`."""

    root: Path
    rgb: Path
    out: Path
    effort: Effort
    device: str
    bench: Bench | None = None

    def __call__(self, cell: Cell) -> Row:
        """Scores of one method on one split."""
        if self.bench is None or (self.bench.scene, self.bench.seed) != (cell.scene, cell.seed):
            self.bench = Bench(self.root, self.rgb, self.out, cell.scene, cell.seed, self.effort, self.device)
        return {'method': cell.method.name, **measured(self.bench, cell.method)}


def experiment(
    groups: Sequence[Group], root: Path, rgb: Path, out: Path, effort: Effort, wanted: Sequence[Method], device: str
) -> Experiment:
    """Tables 1 and 2; a killed run loses at most the lines in hand, whose trainings resume from checkpoints."""
    return Experiment(
        'Unmixing before Fusion on real scenes',
        [cell(scene, seed, method, effort) for scene, seed in groups for method in wanted],
        Measure(root, rgb, out, effort, device),
        group=lambda one: (one.scene, one.seed),
    )


def measured(bench: Bench, method: Method) -> Row:
    """Scores of one method on one split."""
    made = MAKERS[method.make](bench, method)
    real, peak = bench.real, float(bench.unmixing(K).scale)
    features = [bench.encoder(x.to(bench.device)).cpu() for x in (real, made.image, bench.trained_on)]
    near = prdc(features[0], features[1], k=3)  # as Kynkäänniemi et al. 2019, whom the text follows
    row: Row = {
        'k': method.k,
        'train_images': len(bench.data.x),
        'test_images': len(bench.test),
        'compared': bench.count,
        'fid': frechet_distance(features[0], features[1]),
        'fid_train': frechet_distance(features[2], features[1]),
        'precision': near.precision,
        'recall': near.recall,
        'edges': float(edges(made.image) / edges(bench.trained_on)),
        'parameters': made.parameters,
        'seconds': made.seconds,
    }
    if made.restored is not None:
        scores = super_resolution_scores(made.restored, real, 1, peak)
        error = float((made.restored - real).square().mean().sqrt() / peak)
        row |= {'rmse': error, 'psnr': scores.psnr, 'ssim': scores.ssim, 'sad': math.degrees(scores.sam)}
    return row


def edges(image: Tensor) -> Tensor:
    """() standard deviation of the differences between neighbouring pixels."""
    return torch.stack([image.diff(dim=d).std() for d in (2, 3)]).mean()


# --- what they say ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """Of the text: that one method has less of a score than another, or more.

    Args:
        first: method that is claimed to be the better one.
        second: the other one.
        metric: which score, as lines have it.
        table: where the text has it.
    """

    first: str
    second: str
    metric: str
    table: int

    @property
    def sign(self) -> int:
        """1 where more is better."""
        return 1 if self.metric in ('recall', 'precision', 'psnr', 'ssim', 'oa') else -1


def claims(effort: Effort) -> list[Claim]:
    """All that the tables can decide."""
    ours = [f'{name} + RGB' for name in ('VAE', 'style GAN', 'diffusion')]
    found = [Claim(name, ours[0], 'fid', 1) for name in ours[1:]]
    found += [Claim(ours[1], ours[2], metric, 1) for metric in ('fid', 'recall', 'precision', 'seconds')]
    found += [Claim(name, rival, 'fid', 1) for rival in ('Gaussian mixture', 'RGB to spectrum') for name in ours]
    found += [Claim(name, name.removesuffix(' + RGB'), 'recall', 1) for name in ours]
    steps = [_of_k(k) for k in sorted(effort.endmembers, reverse=True)]
    found += [Claim(more, less, metric, 2) for metric in ('rmse', 'sad') for more, less in pairwise(steps)]
    found += [Claim(_of_k(K), _of_k(k), 'fid', 2) for k in effort.endmembers if k > K]
    found += [Claim(_of_k(K), f'diffusion of the {space}', 'fid', 2) for space in ('cube', 'code')]
    return [*found, Claim(_of_k(K), 'diffusion of the code', 'rmse', 2)]


def _of_k(k: int) -> str:
    return 'diffusion' if k == K else f'diffusion, k = {k}'


@dataclass(frozen=True)
class Decision:
    """A claim on one scene: of FID and seconds the logarithms are compared, for their unit differs between splits."""

    scene: str
    claim: Claim
    difference: PairedComparison
    p_holm: float = math.nan

    @property
    def result(self) -> str:
        """By the p value, corrected over all claims and scenes."""
        if not self.difference.basis_for_claims:
            return 'too few seeds'
        if self.p_holm >= 0.05:
            return 'open'
        return 'holds' if self.difference.mean > 0 else 'refuted'


def decisions(rows: Sequence[Row], claimed: Sequence[Claim]) -> list[Decision]:
    """All claims on all scenes, where a seed has both sides."""
    found = list(_decided(rows, claimed))
    adjusted = holm([d.difference.p for d in found])
    return [replace(d, p_holm=p) for d, p in zip(found, adjusted, strict=True)]


def _decided(rows: Sequence[Row], claimed: Sequence[Claim]) -> Iterator[Decision]:
    for scene in dict.fromkeys(row['scene'] for row in rows):
        for claim in claimed:
            sides = [
                {r['seed']: _value(r, claim.metric) for r in rows if (r['scene'], r['method']) == (scene, name)}
                for name in (claim.first, claim.second)
            ]
            if seeds := sorted(set(sides[0]) & set(sides[1])):
                first, second = ([claim.sign * side[seed] for seed in seeds] for side in sides)
                yield Decision(scene, claim, paired_comparison(first, second))


def _value(row: Row, metric: str) -> float:
    """A score as claims compare it."""
    return math.log(row[metric]) if metric in ('fid', 'seconds') else row[metric]


def markdown(rows: Sequence[Row], effort: Effort, tables: Sequence[int]) -> str:
    """Means with intervals over seeds, and the decided claims."""
    lines: list[str] = []
    for scene in dict.fromkeys(row['scene'] for row in rows):
        here = [row for row in rows if row['scene'] == scene]
        for table in sorted(set(tables) & {1, 2}):
            lines += _table(scene, table, here, methods(effort))
    claimed = [claim for claim in claims(effort) if claim.table in tables]
    return '\n'.join([*lines, *results(decisions(rows, claimed))])


def results(decided: Sequence[Decision]) -> list[str]:
    """Lines of Markdown on what became of claims."""
    rows = []
    for d in decided:
        name = {**MADE, **RESTORED, 'oa': 'OA'}[d.claim.metric]
        ends = d.difference.interval
        between = '–' if math.isnan(ends[0]) else f'[{ends[0]:+.3f}, {ends[1]:+.3f}]'
        claim = f'{name}: {d.claim.first} better than {d.claim.second}'
        difference = f'{d.difference.mean:+.3f} {between}'
        rows.append([d.scene, d.claim.table, claim, d.difference.n, difference, f'{d.p_holm:.3f}', d.result])
    return [
        '### What the text claims\n',
        'Positive differences are for the claim; of FID and seconds, they are of natural logarithms: 0.69 is half. p '
        'is corrected by Holm over all of them.\n',
        markdown_table(['scene', 'table', 'claim', 'n', 'difference [95 % interval]', 'p', 'result'], rows),
    ]


def _table(scene: str, table: int, rows: Sequence[Row], listed: Sequence[Method]) -> list[str]:
    columns = MADE if table == 1 else {**RESTORED, **{m: MADE[m] for m in ('fid', 'recall', 'precision', 'parameters')}}
    first = rows[0]
    found = {line['method']: line for line in means(rows, ['method'], list(columns))}
    lines = [
        [method.name, found[method.name]['n'], *(found[method.name].get(name) for name in columns)]
        for method in listed
        if method.name in found and table in method.tables
    ]
    return [
        f'### Table {table}, {scene}\n',
        f'{first["train_images"]} training and {first["test_images"]} test images in seed {first["seed"]}, '
        f'{first["compared"]} compared. Means over seeds with their 95 % intervals.\n',
        markdown_table(['method', 'seeds', *columns.values()], lines),
    ]
