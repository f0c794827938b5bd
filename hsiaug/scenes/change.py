"""Two dates of the same place with a change mask, as a scene that can be split like any other, and its windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from ..progress import with_progress
from ..samples import Kind, SampleSpec
from .labels import UNLABELLED
from .patches import PatchSplit, PatchSplitter
from .scene import Scene, as_array
from .simulated import SimulatedScene
from .splits import checked_seed
from .wavelengths import sentinel2_centres
from .windows import window_sums

UNCHANGED, CHANGED = 1, 2
"""Labels of a bitemporal scene; ignored pixels are unlabelled."""

CHANGE_CLASSES = {UNCHANGED: 'unchanged', CHANGED: 'changed'}
IGNORED = 255
"""Value of ignored pixels in change masks."""

Pair = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(eq=False, repr=False)
class BitemporalScene(Scene):
    """Two co-registered dates with a change mask; made with :meth:`from_dates` or another ``from_`` method.

    It is split like any other scene: in the cube, the bands of the second date follow those of the first, and the
    labels are 1 where nothing changed and 2 where something did. A window therefore covers both dates and the mask.
    Arguments are those of :class:`Scene`, for the cube of both dates.

    Raises:
        ValueError: if the cube does not hold two dates with the same bands.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        half = self.cube.shape[2] // 2
        first, second = np.array_split(cast(np.ndarray, self.bands), 2)
        if self.cube.shape[2] % 2 or not np.array_equal(first + half, second):
            raise ValueError(
                f'BitemporalScene {self.name!r}: both dates need the same bands, found {self.cube.shape[2]} bands in '
                f'the cube, of which {self.bands} are in use; make the scene with BitemporalScene.from_dates'
            )

    @classmethod
    def from_dates(
        cls, name: str, first: np.ndarray, second: np.ndarray, change: np.ndarray, **kwargs: Any
    ) -> BitemporalScene:
        """A scene of one place.

        Args:
            name: short name.
            first: (H, W, C) image of the first date.
            second: (H, W, C) image of the second date.
            change: (H, W) mask, 1 where something changed, 0 where nothing did, 255 where a pixel is to be ignored.
            kwargs: other arguments of :class:`Scene`; ``wavelengths``, ``bands``, ``scale`` and ``offset`` are for one
                date.

        Raises:
            ValueError: if the dates or the mask differ in size, the mask holds other values, or nothing changed.
        """
        cube, labels = _stacked(name, (first, second, change))
        _require_any_change(name, [labels])
        return cls(name, cube, labels, **_for_both_dates(kwargs, cube.shape[2] // 2))

    @classmethod
    def from_pairs(
        cls, name: str, pairs: Iterable[Pair], groups: Sequence[int] | np.ndarray | None = None, **kwargs: Any
    ) -> BitemporalScene:
        """A scene of several places, such as cities or tiles, which may differ in size.

        They are stacked as tiles of the size of the largest. Smaller ones are padded with unlabelled pixels that count
        as not measured; use ``PatchSplitter(min_labelled=1.0)`` to cut windows inside the images only.

        Args:
            name: short name.
            pairs: first date (H, W, C), second date (H, W, C) and mask (H, W) of each place, as in :meth:`from_dates`.
            groups: a number for each place; places with the same number are never separated by a split. By default,
                each place is its own group.
            kwargs: as for :meth:`from_dates`. Integers need ``nodata`` if sizes differ.

        Raises:
            ValueError: as :meth:`from_dates`, naming the place, or if places differ in bands.
        """
        stacked = [_stacked(f'{name}, pair {k}', pair) for k, pair in enumerate(pairs)]
        if not stacked:
            raise ValueError(f'BitemporalScene {name!r}: no pairs; check the folder or dataset that they come from')
        cubes, masks = zip(*stacked, strict=True)
        _require_any_change(name, masks)
        if len(counts := sorted({cube.shape[2] // 2 for cube in cubes})) > 1:
            raise ValueError(f'BitemporalScene {name!r}: all pairs need the same bands, found {counts} bands')
        height, width = (max(mask.shape[axis] for mask in masks) for axis in range(2))
        fill, dtype = kwargs.get('nodata'), np.result_type(*cubes)
        if fill is None and any(mask.shape != (height, width) for mask in masks):
            if not np.issubdtype(dtype, np.floating):
                raise ValueError(
                    f'BitemporalScene {name!r}: pairs of different sizes are filled up with the value of pixels that '
                    f'are not measured; images of {dtype} have none of their own, so give nodata'
                )
            fill = np.nan
        tiles = np.full((len(cubes), height, width, cubes[0].shape[2]), 0 if fill is None else fill, dtype=dtype)
        labels = np.full(tiles.shape[:3], UNLABELLED, dtype=np.uint8)
        for k, (cube, mask) in enumerate(zip(cubes, masks, strict=True)):
            tiles[k, : mask.shape[0], : mask.shape[1]] = cube
            labels[k, : mask.shape[0], : mask.shape[1]] = mask
        settings = _for_both_dates(kwargs, tiles.shape[3] // 2)
        return cast(
            BitemporalScene,
            cls.from_tiles(name, tiles, labels, None if groups is None else np.asarray(groups), **settings),
        )

    @classmethod
    def from_dataset(
        cls,
        name: str,
        dataset: Any,
        groups: Sequence[int] | np.ndarray | None = None,
        progress: bool = False,
        **kwargs: Any,
    ) -> BitemporalScene:
        """A scene of all samples of a change-detection dataset, such as the cities of torchgeo's ``OSCD``.

        Args:
            name: short name.
            dataset: map-style, with ``image`` (2, C, H, W) and ``mask`` (1, H, W) or (H, W); sizes may differ.
            groups: as for :meth:`from_pairs`.
            progress: show a progress bar.
            kwargs: as for :meth:`from_pairs`; the centres of Sentinel-2's bands are known by the dataset's ``bands``.

        Raises:
            ValueError: as :meth:`from_pairs`, or if a sample is not a pair of dates.
        """

        def pair(index: int) -> Pair:
            sample = dataset[index]
            image, mask = np.asarray(sample['image']), np.asarray(sample['mask'])
            if image.ndim != 4 or len(image) != 2 or mask.size != np.prod(image.shape[2:]):
                raise ValueError(
                    f'BitemporalScene {name!r}: sample {index} has image {image.shape} and mask {mask.shape}, expected '
                    '(2, C, H, W) and (1, H, W)'
                )
            first, second = image.transpose(0, 2, 3, 1)
            return first, second, mask.reshape(image.shape[2:])

        centres = sentinel2_centres(getattr(dataset, 'bands', ()))
        if centres is not None and kwargs.get('wavelengths') is None:
            kwargs.update(wavelengths=centres, wavelengths_approximate=True)
        indices = with_progress(range(len(dataset)), progress, desc='pairs', unit='pair')
        return cls.from_pairs(name, map(pair, indices), groups, **kwargs)

    @classmethod
    def from_simulated(cls, scene: SimulatedScene) -> BitemporalScene:
        """Both dates of a simulated scene. Season and light differ everywhere; the mask holds only real changes.

        Raises:
            ValueError: if it has only one date.
        """
        if scene.second_date is None or scene.change is None:
            raise ValueError('BitemporalScene: this simulated scene has one date; make it with SimulatedScene(dates=2)')
        return cls.from_dates(
            scene.name, scene.cube, scene.second_date, scene.change, wavelengths=scene.wavelengths, unit=scene.unit
        )

    def spec(
        self,
        classes: Sequence[int] | None = None,
        kind: Kind = 'change',
        size: tuple[int, int] | None = None,
        ignore_index: int | None = None,
    ) -> SampleSpec:
        """The spec of this scene's samples; arguments as for :meth:`Scene.spec`.

        Pairs of dates (kind ``'change'``) have the bands of one date, every other kind those of both.
        """
        spec = super().spec(classes, 'segmentation' if kind == 'change' else kind, size, ignore_index)
        if kind != 'change':
            return spec
        bands = spec.bands // 2
        return replace(spec, kind=kind, bands=bands, wavelengths=spec.wavelengths and spec.wavelengths[:bands])

    def bad_bands(self) -> dict[int, str]:
        """Bands in use that carry no information at one date, and the same bands of the other date."""
        bad = super().bad_bands()
        half = self.cube.shape[2] // 2
        partners = {(band + half) % (2 * half): f'{why} at the other date' for band, why in bad.items()}
        return dict(sorted({**partners, **bad}.items()))

    def checked(self, on_bad_bands: Literal['error', 'drop'] = 'error') -> BitemporalScene:
        """This scene with bad bands refused or left out of both dates; see :meth:`Scene.checked`."""
        checked = super().checked(on_bad_bands)
        return self if checked is self else replace(self, bands=checked.bands)


def require_change_values(values: np.ndarray, where: str, ignored: int | None = IGNORED) -> None:
    """Check the values of a change mask."""
    allowed = 'expected 0 (unchanged) and 1 (changed)' + ('' if ignored is None else f', {ignored} where ignored')
    found = np.unique(values)
    if np.isin(found, [0, 1] if ignored is None else [0, 1, ignored]).all():
        return
    hint = 'give a binary mask'
    if np.isin(found, [1, 2]).all():
        hint = 'subtract 1 if 2 means changed'
    elif np.isin(found, [0, 255]).all():
        hint = 'use mask // 255 if 255 means changed'
    raise ValueError(f'{where}: the change mask holds {found[:8].tolist()}, {allowed}; {hint}')


def _stacked(where: str, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 2 C) cube and (H, W) labels of two dates and their mask."""
    first, second, change = (as_array(array, fill) for array, fill in zip(pair, (np.nan, np.nan, IGNORED), strict=True))
    sizes = ' and '.join('x'.join(map(str, image.shape[:2])) for image in (first, second))
    if first.ndim != 3 or second.ndim != 3 or change.ndim != 2:
        raise ValueError(
            f'BitemporalScene {where}: dates must be (H, W, bands) and the mask (H, W), found {first.shape}, '
            f'{second.shape} and {change.shape}'
        )
    if not first.shape[:2] == second.shape[:2] == change.shape:
        raise ValueError(
            f'BitemporalScene {where}: the dates have {sizes} pixels, the mask has {"x".join(map(str, change.shape))}; '
            'if all begin at the same corner and differ at the far edges only, cut them with '
            'first, second, change = crop_to_common(first, second, change)'
        )
    if first.shape[2] != second.shape[2]:
        raise ValueError(
            f'BitemporalScene {where}: the first date has {first.shape[2]} bands, the second {second.shape[2]}; give '
            'the same bands of both dates'
        )
    require_change_values(change, f'BitemporalScene {where}')
    labels = np.where(change == IGNORED, UNLABELLED, change.astype(np.uint8) + UNCHANGED).astype(np.uint8)
    return np.concatenate([first, second], axis=2), labels


def _require_any_change(where: str, labels: Iterable[np.ndarray]) -> None:
    found = np.unique(np.concatenate([np.unique(mask) for mask in labels]))
    if CHANGED not in found:
        hint = 'use mask // 255 if 255 means changed; ' if UNLABELLED in found else ''
        raise ValueError(
            f'BitemporalScene {where}: no pixel of any mask is changed (1), so there is nothing to learn; {hint}check '
            'that the masks belong to these images'
        )


def _for_both_dates(kwargs: dict[str, Any], bands: int) -> dict[str, Any]:
    """Arguments of a scene, with those per band repeated for the second date."""
    settings: dict[str, Any] = {'class_names': CHANGE_CLASSES, **kwargs}
    for name in ('wavelengths', 'scale', 'offset'):
        if (value := np.asarray(settings.get(name))).ndim == 1:
            settings[name] = np.tile(value, 2)
    if (used := settings.get('bands')) is not None:
        settings['bands'] = np.concatenate([np.asarray(used), np.asarray(used) + bands])
    return settings


@dataclass(frozen=True)
class ChangeSplitter(PatchSplitter):
    """Draws windows of pairs of dates, with fewer windows for training, a larger share of which holds change.

    Training windows without change are dropped at random. Validation and test windows stay as they are: scores on
    balanced windows would be too high. ``max_train`` applies after balancing; smaller selections are part of larger
    ones.

    Args:
        change_share: least share of training windows that hold change.
        min_change: least share of changed pixels for a window to hold change; 0 means a single pixel.
    """

    change_share: float = 0.5
    min_change: float = 0.01

    def __call__(self, scene: Scene, seed: int = 0) -> PatchSplit:
        """Draw the windows of a scene of two dates.

        Raises:
            TypeError: for a scene of one date.
            ValueError: as :class:`PatchSplitter`, or if no training window holds change.
        """
        seed = checked_seed('ChangeSplitter', scene, seed)
        if not isinstance(scene, BitemporalScene):
            raise TypeError(f'ChangeSplitter: scene {scene.name!r} has one date; use PatchSplitter')
        every = PatchSplitter.__call__(replace(self, max_train=None), scene, seed)
        changed = ((scene.flat_labels() == CHANGED) & scene.valid).reshape(1, *scene.shape)
        pixels = window_sums(changed, self.size)[0][tuple(every.train.T)]
        holds = pixels >= max(1, self.min_change * self.size**2)
        if not holds.any():
            raise ValueError(
                f'ChangeSplitter: none of {len(holds)} training windows of scene {scene.name!r} has '
                f'{self.min_change:.2%} changed pixels, the most is {pixels.max(initial=0) / self.size**2:.2%}; lower '
                'min_change, or split with another seed'
            )
        rng = np.random.default_rng(seed)
        with_change, without = (rng.permutation(np.flatnonzero(which)) for which in (holds, ~holds))
        # Rounded before flooring, so that 2.9999 windows count as 3.
        others = math.floor(round(len(with_change) * (1 - self.change_share) / self.change_share, 9))
        total = len(with_change) + min(len(without), others)
        kept = min(total, self.max_train or total)
        first = -(-kept * len(with_change) // total)
        chosen = np.sort(np.concatenate([with_change[:first], without[: kept - first]]))
        left_out = len(holds) - kept
        words = (f'{left_out} training windows, to balance those with and without change',) if left_out else ()
        return replace(
            every,
            train=every.train[chosen],
            strategy={**every.strategy, 'max_train': self.max_train},
            dropped=(*every.dropped, *words),
            unlabelled=self._left_over(every.train, chosen, np.random.default_rng(seed)),
        )
