"""Single samples on a page: what one looks like, and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor

from ..datasets.preview import REAL, SYNTHETIC, BandAxis, class_colour, false_colour, mask_colour, stretch_limits
from ..metrics.masks import class_shares
from ..samples import SampleSpec
from .html import Picture

Sample = Mapping[str, Any]
_NAMED = 3  # classes of a mask that are named


class Drawer:
    """Draws single samples, all under one stretch and in front of the same real spectra."""

    def __init__(self, spec: SampleSpec, train: Sample) -> None:
        self.spec, self.train = spec, train
        self.limits = None if spec.size is None else stretch_limits(train['image'], spec.wavelengths)

    def sample(self, batch: Sample, row: int, synthetic: bool) -> list[Picture]:
        """One sample of a batch: its pictures, or its spectrum in front of real ones of its class."""
        if self.spec.size is None:
            return [self.spectra({'synthetic' if synthetic else 'real': batch['image'][row]}, int(batch['label'][row]))]
        of, image = 'synthetic' if synthetic else 'real', batch['image'][row]
        dates = image if self.spec.dates == 2 else image[None]
        names = [f'{of} image' + (f', date {k + 1}' if len(dates) > 1 else '') for k in range(len(dates))]
        pictures = [
            Picture.of_pixels(false_colour(date, self.spec.wavelengths, self.limits), name)
            for date, name in zip(dates, names, strict=True)
        ]
        if 'mask' in batch:
            mask = batch['mask'][row].reshape(image.shape[-2:])
            pictures.append(Picture.of_pixels(mask_colour(mask, self.spec), f'{of} mask'))
        return pictures

    def spectra(self, lines: Mapping[str, Tensor], label: int) -> Picture:
        """A few spectra, ``'real'`` or ``'synthetic'``, over what holds the middle 80 % of real ones of a class."""
        figure = Figure(figsize=(3.4, 1.9))  # there are many: a layout that is worked out would take longest
        axes = figure.subplots(gridspec_kw={'left': 0.16, 'right': 0.97, 'bottom': 0.26, 'top': 0.95})
        bands = BandAxis(self.spec)
        x = bands.broken(bands.x)
        mine = self.train['image'][self.train['label'] == label].numpy()
        if len(mine):
            low, high = (bands.broken(edge) for edge in np.quantile(mine, [0.1, 0.9], axis=0))
            axes.fill_between(x, low, high, color=REAL, alpha=0.18, lw=0)
        for name, spectrum in lines.items():
            dash = '--' if name == 'real' else '-'
            axes.plot(x, bands.broken(spectrum.numpy()), dash, color=REAL if name == 'real' else SYNTHETIC, lw=1.2)
        bands.label(axes)
        axes.locator_params(nbins=4)
        return Picture.of_figure(figure, f'spectrum: {" and ".join(lines)}, over real ones of the class')

    def classes(self, batch: Sample, row: int) -> str:
        """What a sample shows, in words."""
        spec = self.spec
        target = batch[spec.target_key][row]
        if spec.target_key == 'label':
            return spec.classes[int(target)]
        shares = class_shares(target.reshape(1, *target.shape[-2:]), spec.num_classes, spec.ignore_index)
        if not shares.isfinite().all():
            return 'no pixel that counts'
        order = [k for k in torch.argsort(shares, descending=True).tolist() if shares[k] > 0]
        said = [f'{spec.classes[k]} {100 * shares[k]:.0f}\xa0%' for k in order[:_NAMED]]
        return ', '.join(said) + (f' and {len(order) - _NAMED} more' if len(order) > _NAMED else '')

    def legend(self) -> list[tuple[str, str]]:
        """Names and colours of what the pictures show."""
        if self.spec.size is None:
            return [('synthetic', SYNTHETIC), ('real', REAL)]
        if self.spec.target_key == 'label':
            return []
        return [(name, to_hex(class_colour(k))) for k, name in enumerate(self.spec.classes)]
