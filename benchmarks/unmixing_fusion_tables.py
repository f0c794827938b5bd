"""Tables 1 and 2 of "Unmixing before Fusion" on real scenes: one line per scene, seed and method, and what they say."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor
from unmixing_fusion_bench import MAKERS, Bench, Effort, K, Method, methods
from workers import run_in_workers

from hsiaug.ablation.results import RESULTS_FILE, append_result, read_results
from hsiaug.ablation.statistics import PairedComparison, holm, paired_comparison
from hsiaug.metrics import frechet_distance, prdc, super_resolution_scores

Row = dict[str, Any]
Group = tuple[str, int]  # scene and seed
MADE = {
    'fid': 'FID', 'recall': 'recall', 'precision': 'precision', 'fid_train': 'FID to training', 'edges': 'edges',
    'parameters': 'parameters', 'seconds': 's a sample',
}  # fmt: skip
RESTORED = {'rmse': 'RMSE', 'psnr': 'PSNR (dB)', 'ssim': 'SSIM', 'sad': 'SAD (deg)'}


def key(scene: str, seed: int, method: Method, effort: Effort) -> str:
    """16 hex digits that identify a line, and all settings that it depends on."""
    kind = effort.kinds[method.kind] if method.make in ('fusion', 'code', 'cube') else None
    settings = [scene, seed, dataclasses.asdict(method), kind, effort.unmixing, effort.samples]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def run_group(group: Group, root: Path, rgb: Path, out: Path, effort: Effort, wanted: list[Method], device: str) -> int:
    """Measure what is missing of one split of one scene; returns how many lines that were."""
    scene, seed = group
    done = {row['cell'] for row in read_results(out / RESULTS_FILE)}
    pending = [method for method in wanted if key(scene, seed, method, effort) not in done]
    if not pending:
        return 0
    bench = Bench(root, rgb, out, scene, seed, effort, device)
    for method in pending:
        row = {'cell': key(scene, seed, method, effort), 'scene': scene, 'seed': seed, 'method': method.name}
        append_result(out / RESULTS_FILE, row | measured(bench, method))
    return len(pending)


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
    """() spread of the differences between neighbouring pixels."""
    return torch.stack([image.diff(dim=d).std() for d in (2, 3)]).mean()


def run_tables(
    groups: Sequence[Group], root: Path, rgb: Path, out: Path, effort: Effort, wanted: list[Method], workers: int,
    device: str,
) -> None:  # fmt: skip
    """Run what is still missing; a killed run loses at most the lines in hand, and their trainings go on."""
    tasks = [(group, root, rgb, out, effort, wanted, device) for group in groups]
    run_in_workers(run_group, tasks, workers, 'tables', 'split')


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
    def verdict(self) -> str:
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
    return '\n'.join([*lines, *verdicts(decisions(rows, claimed))])


def verdicts(decided: Sequence[Decision]) -> list[str]:
    """Lines of Markdown on what became of claims."""
    lines = [
        '### What the text claims', '', 'Positive differences are for the claim; of FID and seconds, they are of '
        'natural logarithms: 0.69 is half. p is corrected by Holm over all of them.', '',
        '| scene | table | claim | n | difference [95 % interval] | p | verdict |', '|---|---|---|---|---|---|---|',
    ]  # fmt: skip
    for d in decided:
        name = {**MADE, **RESTORED, 'oa': 'OA'}[d.claim.metric]
        ends = d.difference.interval
        between = '–' if math.isnan(ends[0]) else f'[{ends[0]:+.3f}, {ends[1]:+.3f}]'
        lines.append(
            f'| {d.scene} | {d.claim.table} | {name}: {d.claim.first} better than {d.claim.second} | {d.difference.n} '
            f'| {d.difference.mean:+.3f} {between} | {d.p_holm:.3f} | {d.verdict} |'
        )
    return [*lines, '']


def _table(scene: str, table: int, rows: Sequence[Row], listed: Sequence[Method]) -> list[str]:
    columns = MADE if table == 1 else {**RESTORED, **{m: MADE[m] for m in ('fid', 'recall', 'precision', 'parameters')}}
    first = rows[0]
    lines = [
        f'### Table {table}, {scene}', '',
        f'{first["train_images"]} training and {first["test_images"]} test images in seed {first["seed"]}, '
        f'{first["compared"]} compared. Means over seeds with their 95 % intervals.', '',
        f'| method | seeds | {" | ".join(columns.values())} |', '|---|---|' + '---|' * len(columns),
    ]  # fmt: skip
    for method in listed:
        mine = [row for row in rows if row['method'] == method.name]
        if mine and table in method.tables:
            cells = [_mean([row[c] for row in mine if row.get(c) is not None]) for c in columns]
            lines.append(f'| {method.name} | {len(mine)} | {" | ".join(cells)} |')
    return [*lines, '']


def _mean(values: Sequence[float]) -> str:
    """A mean and half of its interval."""
    if not values:
        return '–'
    mean, n = float(np.mean(values)), len(values)
    if len(set(values)) == 1:
        return f'{mean:.4g}'
    return f'{mean:.3g} ± {float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n):.2g}'
