"""All seeds of a setting in one training: stacked NN-1Ds, so that a step of twenty costs little more than of one.

The protocol is that of a study, except that the order of samples differs and each batch holds its exact share of
synthetic samples. One thread trains twenty networks two to three times as fast as one after the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state
from torch.nn.functional import cross_entropy, one_hot

from hsiaug.ablation import Arm, Study
from hsiaug.ablation.cells import Group
from hsiaug.ablation.plan import REAL
from hsiaug.ablation.results import PLAN_FILE, RESULTS_FILE, read_results
from hsiaug.ablation.runner import describe, open_group, require_same_study
from hsiaug.engine.schedules import Cosine
from hsiaug.functional.plain import plain_torch
from hsiaug.json_lines import append_line
from hsiaug.models.nn1d import NN1D
from hsiaug.progress import with_progress
from hsiaug.ratio import synthetic_fraction
from hsiaug.records import write_json
from hsiaug.streams import seeded
from hsiaug.trainers import ClassifierConfig
from hsiaug.trainers.convergence import still_falls

LABELS = {'uniform': 0.0, 'sqrt': 0.5, 'real': 1.0}
"""Powers of the class frequencies for drawing synthetic labels."""


def run_stacked(study: Study, out: Path) -> None:
    """Measure missing cells of a study of NN-1D, one arm of a setting at a time, over all seeds."""
    if any(arm.synthetic_only or arm.labels not in LABELS for arm in study.arms):
        raise ValueError(f'run_stacked: arms with real samples and labels of {list(LABELS)} only')
    out.mkdir(parents=True, exist_ok=True)
    done = {row['cell'] for row in read_results(out / RESULTS_FILE)}
    if done:
        require_same_study(study, out, len(done))
    write_json(out / PLAN_FILE, describe(study, 'cpu', 1))
    for setting in with_progress(study.settings, True, desc=study.title, unit='setting'):
        cells = [study.cells(setting, seed) for seed in study.seeds]
        if all(cell.key in done for of in cells for cell in of):
            continue
        groups = [open_group(study, setting, seed, out) for seed in study.seeds]
        for of in zip(*cells, strict=True):
            if all(cell.key in done for cell in of):
                continue
            arm, ratio = of[0].arm, of[0].ratio
            config = (arm.adapt(of[0].classifier) if arm else of[0].classifier).config
            alike: dict[Any, list[int]] = defaultdict(list)
            for k, group in enumerate(groups):  # stacked networks have equal numbers of outputs
                alike[group.data.spec.num_classes].append(k)
            for same in alike.values():
                rows = trained([groups[k] for k in same], arm, ratio, config)
                for k, row in zip(same, rows, strict=True):
                    about = {'cell': of[k].key, 'scene': setting.scene, 'budget': setting.budget}
                    about |= {'classifier': of[k].classifier.name, 'arm': REAL if arm is None else arm.name}
                    append_line(out / RESULTS_FILE, {**about, 'ratio': ratio, 'seed': study.seeds[k], **row})


@plain_torch()
def trained(groups: list[Group], arm: Arm | None, ratio: float, config: ClassifierConfig) -> Iterator[dict[str, Any]]:
    """Train a network on each group's split, and score it on the test part."""
    networks = []
    for group in groups:
        data = group.data
        with seeded(group.seed, torch.device('cpu')):
            network = NN1D(
                data.spec.bands, data.spec.num_classes, config.hidden, config.layers, config.dropout, config.scaling
            )
        network.scaler.fit(data.x, data.y)
        networks.append(network.train())
    parameters, buffers = stack_module_state(networks)  # type: ignore[arg-type]
    share = [0.0] * config.steps
    if arm is not None:
        ends = round(arm.synthetic_first * config.steps)
        throughout = 0.0 if arm.synthetic_first else synthetic_fraction(ratio)
        share = [1.0 if step < ends else throughout for step in range(config.steps)]
    counts = np.diff(np.floor(np.cumsum([0.0, *share]) * config.batch_size + 1e-6)).astype(int)
    streams = [_Stream(group, arm, int(counts.sum()), config) for group in groups]

    def loss_of(weights: dict[str, Tensor], held: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(functional_call(networks[0], (weights, held), (image,)), target)

    optimiser = torch.optim.AdamW(parameters.values(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    falling, history = Cosine(), []
    with seeded(groups[0].seed, torch.device('cpu')):
        for step, count in enumerate(counts):
            optimiser.param_groups[0]['lr'] = config.lr * falling(step, config.steps)
            batches = [stream.take(int(count), config.batch_size) for stream in streams]
            image, target = (torch.stack(part) for part in zip(*batches, strict=True))
            losses = torch.vmap(loss_of, randomness='different')(parameters, buffers, image, target)
            optimiser.zero_grad()
            losses.sum().backward()
            optimiser.step()
            history.append(losses.detach())
    curves = torch.stack(history, dim=1).tolist()
    since = round((arm.synthetic_first if arm else 0.0) * config.steps)
    for k, (group, network) in enumerate(zip(groups, networks, strict=True)):
        network.load_state_dict({name: value[k].detach() for name, value in (parameters | buffers).items()})
        network.eval()
        row: dict[str, Any] = {'train_real': len(group.real), 'test_count': len(group.test)}
        for part in ('val', 'test'):
            scores = group._scores(network, part)
            row[part] = {metric: scores[metric] for metric in group.task.metrics}
        yield {**row, 'still_falls': still_falls(curves[k], since)}


class _Stream:
    """Samples of a group: real ones, in epochs, and synthetic ones, which never repeat."""

    def __init__(self, group: Group, arm: Arm | None, synthetic: int, config: ClassifierConfig) -> None:
        data, rng = group.data, np.random.default_rng(group.seed)
        total, classes = config.steps * config.batch_size, data.spec.num_classes
        turns = [rng.permutation(len(data.x)) for _ in range(-(-(total - synthetic) // len(data.x)))]
        order = torch.from_numpy(np.concatenate([np.empty(0, dtype=np.int64), *turns]))
        self.real = data.x[order], one_hot(data.y[order], classes).float()
        self.synthetic = data.x[:0], torch.empty(0, classes)
        if arm is not None and synthetic:
            weight = np.bincount(data.y, minlength=classes) ** LABELS[arm.labels]  # type: ignore[index]
            labels = torch.from_numpy(rng.choice(classes, synthetic, p=weight / weight.sum()))
            drawn = group.generator(arm).sample(synthetic, labels, seed=group.seed)
            self.synthetic = drawn['image'], drawn.get('label_prob', one_hot(labels, classes).float())
        self.taken = [0, 0]

    def take(self, synthetic: int, size: int) -> tuple[Tensor, Tensor]:
        """(size, C) spectra and (size, K) targets of the next batch."""
        parts = []
        for which, (count, source) in enumerate(((size - synthetic, self.real), (synthetic, self.synthetic))):
            start = self.taken[which]
            parts.append([values[start : start + count] for values in source])
            self.taken[which] += count
        image, target = (torch.cat(part) for part in zip(*parts, strict=True))
        return image, target
