"""Mask files: values as stored, and the classes that they mean."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path

import numpy as np

from ..samples import as_classes
from ..scenes.files import LABEL_KEYS, Content, Facts, SceneFileError, Variable
from ..scenes.formats import open_content
from ..scenes.labels import ignored_values, without_class
from .held import IGNORE
from .image_files import MANY, WHOLE, Window, window_of
from .shared import Kept


class MaskFiles:
    """Reads masks of one class index per pixel.

    Negative values, NaN and a file's own nodata are ignored unless they are classes.

    Args:
        owner: class whose files they are; the other arguments are its own.
        few: they are few and large, read by windows: what the files say is read once.

    Raises:
        ValueError: if the settings contradict each other.
    """

    def __init__(
        self,
        owner: str,
        classes: Sequence[str],
        label_map: Mapping[int, int] | None = None,
        ignore: Sequence[int] = (),
        key: str | None = None,
        few: bool = False,
    ) -> None:
        self.owner, self.classes, self.key = owner, as_classes(classes, owner), key
        ignored = ignored_values(ignore, owner) or ()
        self.opened: Kept[Path, Content] = Kept(MANY if few else 0)
        labels = {k: k for k in range(len(classes))} if label_map is None else dict(label_map)
        if wrong := {
            raw: k
            for raw, k in labels.items()
            if not (isinstance(raw, Real) and isinstance(k, Real) and 0 <= k < len(classes))
        }:
            raise ValueError(f'{owner}: label_map must map to 0..{len(classes) - 1}, the classes, found {wrong}')
        if label_map is not None and (both := sorted(set(label_map) & set(ignored))):
            raise ValueError(f'{owner}: label_map and ignore both name {both}')
        self.raw_to_class = labels | dict.fromkeys(ignored, IGNORE)
        self.explicit = {*(label_map or ()), *ignored}

    def _open(self, file: Path) -> tuple[Variable, Facts]:
        content = self.opened.get_or_make(file, lambda: open_content(file, 'mask'))
        try:
            return content.find(self.key, LABEL_KEYS, (2,), 'mask', 'mask_key'), content.facts
        except SceneFileError as error:
            hint = '; a mask holds one class index per pixel, in one band: colours and one-hot masks are not mapped'
            raise SceneFileError(f'{error}{hint}') from None

    def size(self, file: Path) -> tuple[int, ...]:
        """(H, W) of a mask, of which no values are read."""
        shape = self._open(file)[0].shape
        return shape if len(shape) == 2 else shape[:2] if shape[2] == 1 else shape[1:]

    def read(self, file: Path, size: tuple[int, ...] | None, window: Window = WHOLE) -> np.ndarray:
        """(h, w) int64 labels.

        Args:
            file: of the mask.
            size: (h, w) that its image has there.
            window: rows and columns; all of them by default.

        Raises:
            ValueError: naming the file, if it has another size or holds an unknown value.
        """
        variable, facts = self._open(file)
        raw, nodata = window_of(variable, window), facts.nodata
        if raw.shape != size:
            raise ValueError(f'{self.owner}: {file} has {raw.shape}, its image {size} rows and columns')
        values, place = np.unique(raw, return_inverse=True)
        absent = without_class(values, nodata, where=f'{self.owner}: values of {file}')
        known, gone = values.tolist(), absent.tolist()
        labels = np.array(
            [self.raw_to_class.get(v, IGNORE if out else -1) for v, out in zip(known, gone, strict=True)],
            dtype=np.int64,
        )
        if (labels < 0).any():
            raise ValueError(
                f'{self.owner}: {file} holds {values[labels < 0][:8].tolist()}, expected {sorted(self.raw_to_class)}; '
                'map such values to a class with label_map, or name them in ignore'
            )
        if nodata in self.raw_to_class and nodata not in self.explicit and nodata in values:
            warnings.warn(
                f'{self.owner}: {nodata:g} is class {self.classes[self.raw_to_class[int(nodata)]]!r} and the nodata '
                f'value of {file}, so its pixels count as that class; name it in ignore if they do not count, in '
                'label_map if they do',
                stacklevel=3,
            )
        found = labels[place.reshape(raw.shape)]
        return found if facts.measured is None else np.where(facts.measured[window], found, IGNORE)
