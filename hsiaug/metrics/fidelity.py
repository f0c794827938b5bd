"""Fidelity of synthetic spectra: the analyses of Audebert et al. 2018, section 4, and further ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC
from torch import Tensor

from ..functional.scaling import BandScaler
from ..functional.spectral import spectral_angle

_SVM_CELLS = ('real_real', 'real_fake', 'fake_fake', 'fake_real')  # trained on, tested on


@dataclass(frozen=True)
class Fidelity:
    """Fidelity of synthetic spectra to real ones.

    Args:
        msad: spectral angle between real and synthetic class means, mean over classes, radians.
        msad_per_class: (K,) the angles.
        std_ratio: synthetic over real standard deviation, mean over bands, median over classes; ideally 1.
        roughness_ratio: the same ratio for the second difference along the bands, which shows noise; ideally 1.
        svm: accuracy of a linear SVM trained on one side and tested on another (Table 1), with keys ``real_real``,
            ``real_fake``, ``fake_fake``, ``fake_real``. In all four, classes have equal weight in training and test,
            and only classes on both sides count; NaN if there are fewer than two.
        closer_than_real: share of synthetic spectra that are closer to their nearest real spectrum than that one is to
            its own nearest real neighbour; about 0.5 for unseen real spectra, 1 for copies.
    """

    msad: float
    msad_per_class: tuple[float, ...]
    std_ratio: float
    roughness_ratio: float
    svm: dict[str, float]
    closer_than_real: float


def fidelity(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], num_classes: int
) -> Fidelity:
    """Compare synthetic with real spectra.

    Args:
        train: (N, C) spectra and (N,) labels that the generator was trained on.
        test: real spectra and labels that it has not seen.
        fake: synthetic spectra and labels, in any order; half of each class trains the SVM, the other half tests it.
        num_classes: number of classes K.

    Raises:
        ValueError: if bands differ, spectra are not finite, a label is not in [0, K), ``train`` has fewer than two
            spectra, or another side none.
    """
    bands = train[0].shape[-1]
    for name, (x, y), least in (('train', train, 2), ('test', test, 1), ('fake', fake, 1)):
        if x.ndim != 2 or x.shape[1] != bands or y.shape != (len(x),) or len(x) < least:
            raise ValueError(
                f'fidelity: {name} must be at least {least} spectra (n, {bands}) with labels (n,), found '
                f'{tuple(x.shape)} and {tuple(y.shape)}'
            )
        if broken := int((~x.isfinite().all(dim=1)).sum()):
            raise ValueError(f'fidelity: {broken} of {len(x)} {name} spectra hold values that are not finite')
        if not 0 <= int(y.min()) <= int(y.max()) < num_classes:
            raise ValueError(
                f'fidelity: {name} labels must lie in [0, {num_classes}), found [{int(y.min())}, {int(y.max())}]'
            )
    train, test, fake = ((x.detach().cpu(), y.cpu()) for x, y in (train, test, fake))
    angles, stds, roughness = [], [], []
    for label in range(num_classes):
        real, synthetic = (x[y == label].to(torch.float64) for x, y in (train, fake))
        if len(real) < 2 or len(synthetic) < 2:
            angles.append(float('nan'))
            continue
        angles.append(float(spectral_angle(real.mean(dim=0), synthetic.mean(dim=0))))
        stds.append(float(synthetic.std(dim=0).mean() / real.std(dim=0).mean()))
        roughness.append(float(_roughness(synthetic) / _roughness(real)))
    known = [a for a in angles if a == a]
    index = NearestNeighbors().fit(train[0].numpy())
    own = index.kneighbors(n_neighbors=1)[0][:, 0]  # without arguments a point is not its own neighbour
    distance, nearest = index.kneighbors(fake[0].numpy(), n_neighbors=1)
    return Fidelity(
        msad=sum(known) / len(known) if known else float('nan'),
        msad_per_class=tuple(angles),
        std_ratio=_median(stds),
        roughness_ratio=_median(roughness),
        svm=_svm_table(train, test, fake),
        closer_than_real=float((distance[:, 0] < own[nearest[:, 0]]).mean()),
    )


def _roughness(x: Tensor) -> Tensor:
    return x.diff(n=2, dim=1).abs().mean()


def _median(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5)) if values else float('nan')


def _svm_table(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]
) -> dict[str, float]:
    scaler = BandScaler().fit(train[0].numpy())
    second = torch.zeros(len(fake[1]), dtype=torch.bool)  # half of each class, whatever the order of the classes
    for class_id in fake[1].unique():
        second[(fake[1] == class_id).nonzero()[1::2, 0]] = True
    parts = {'real': (train, test), 'fake': tuple((fake[0][half], fake[1][half]) for half in (~second, second))}
    common = set.intersection(*(set(label.tolist()) for side in parts.values() for _, label in side))
    if len(common) < 2:
        return dict.fromkeys(_SVM_CELLS, float('nan'))

    def ready(part: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        label = part[1].numpy()
        counts = np.isin(label, list(common))
        return scaler.transform(part[0].numpy()[counts]), label[counts]

    # Real classes are as frequent as they are, synthetic ones as they were drawn: weights make priors equal.
    fitted = {side: SVC(kernel='linear', class_weight='balanced').fit(*ready(parts[side][0])) for side in parts}
    tested = {side: ready(parts[side][1]) for side in parts}
    found = {}
    for cell in _SVM_CELLS:
        learned, judged = cell.split('_')
        x, y = tested[judged]
        found[cell] = float(balanced_accuracy_score(y, fitted[learned].predict(x)))
    return found
