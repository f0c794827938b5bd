"""What a generator has seen: pixels of scenes or, of other data, digests of samples and windows that they are cut from.

Eight bytes a sample show whether an evaluation holds the same image, and nothing of what it shows.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .records import require_plausible

KEPT = 1 << 18
"""Digests that travel with a generator at most: of more samples, those with the lowest. Of s shared samples among n,
at least one is among them but for a chance of (1 - KEPT/n)^s."""
_BOX = np.dtype([('key', '<u8'), ('box', '<f8', (4,))])


# --- pixels of scenes -----------------------------------------------------------------------------------------------


class SceneFingerprint(str):
    """A scene's fingerprint that remembers what older versions called the same scene.

    Generators that these saved carry a former one; as text it is the present one alone.
    """

    former: frozenset[str]

    def __new__(cls, value: str, former: Iterable[str] = ()) -> SceneFingerprint:
        """Text with a memory."""
        new = super().__new__(cls, value)
        new.former = frozenset(former) - {value}
        return new


def same_scene(one: str, other: str) -> bool:
    """Whether two fingerprints are of one scene, by present or former names."""
    return one == other or one in getattr(other, 'former', ()) or other in getattr(one, 'former', ())


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)  # bits that are set in a byte


@dataclass(frozen=True)
class Footprint:
    """A set of pixels of one scene, small enough to travel with a generator.

    Args:
        scene: fingerprint of the scene.
        size: number of pixels that the scene has.
        packed: base64 of the zlib-compressed bit mask.
    """

    scene: str
    size: int
    packed: str = field(repr=False)

    @classmethod
    def of(cls, scene: str, size: int, pixels: np.ndarray) -> Footprint:
        """The footprint of flat pixel indices."""
        mask = np.zeros(size, dtype=bool)
        mask[pixels] = True
        return cls(scene, size, base64.b64encode(zlib.compress(np.packbits(mask).tobytes(), 6)).decode('ascii'))

    def joined(self, other: Footprint) -> Footprint:
        """Pixels of either, of one scene; it is called as the other calls it, which is the newer."""
        if self == other:
            return other
        return Footprint.of(other.scene, other.size, np.union1d(self.pixels(), other.pixels()))

    def pixels(self) -> np.ndarray:
        """Flat pixel indices, ascending, int64.

        Raises:
            ValueError: if the mask is damaged, or says far more than it holds.
        """
        bits = self._bits()
        require_plausible(8 * int(_ONES[bits].sum()), len(self.packed), 'a footprint of seen pixels')
        held = np.flatnonzero(bits)
        row, column = np.nonzero(np.unpackbits(bits[held, None], axis=1))
        return (8 * held[row] + column).astype(np.int64)

    def within(self, pixels: np.ndarray) -> np.ndarray:
        """Those of flat pixel indices that it holds, ascending, without an array of its own pixels."""
        pixels = np.unique(np.asarray(pixels, dtype=np.int64))
        inside = pixels[(pixels >= 0) & (pixels < self.size)]
        return inside[(self._bits()[inside // 8] >> (7 - inside % 8).astype(np.uint8)) & 1 == 1]

    def _bits(self) -> np.ndarray:
        """(ceil(size / 8),) uint8, unpacked no further than to the size that is declared."""
        expected = -(-self.size // 8)
        require_plausible(expected, len(self.packed), 'a footprint of seen pixels')
        try:
            reader = zlib.decompressobj()
            raw = reader.decompress(base64.b64decode(self.packed, validate=True), max(expected, 0) + 1)
        except (ValueError, zlib.error) as error:
            raise ValueError(f'a footprint of seen pixels is damaged: {error}') from error
        if len(raw) != expected or not reader.eof:
            raise ValueError(
                f'a footprint of seen pixels is damaged: it does not hold the {self.size} that it declares'
            )
        return np.frombuffer(raw, dtype=np.uint8)


# --- samples ------------------------------------------------------------------------------------------------------


def digest_of(values: np.ndarray) -> int:
    """8 bytes of the SHA-256 of an image or spectrum, as float32; 0 for one of a single value, which many share."""
    return digest_of_parts(np.shape(values), [values])


def digest_of_parts(shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> int:
    """:func:`digest_of` of an image of some shape that is read in parts, such as band by band."""
    digest, first, varies = hashlib.sha256(str(tuple(shape)).encode()), None, False
    for part in parts:
        array = np.ascontiguousarray(part, dtype=np.float32)
        if array.size:
            first = array.flat[0] if first is None else first
            varies = varies or not (array == first).all()
            digest.update(array.data)
    return int.from_bytes(digest.digest()[:8], 'little') if varies else 0


def digest_of_text(text: str) -> int:
    """8 bytes of the SHA-256 of a text, as a key of windows."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], 'little')


@dataclass(frozen=True)
class Places:
    """Windows that samples are cut from.

    Args:
        key: (N,) uint64, the same for samples of one image, file or coordinate system.
        box: (N, 4) float64: first and last row, first and last column, the last ones excluded; or coordinates.
    """

    key: np.ndarray
    box: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Places:
        return Places(self.key[rows], self.box[rows])

    @classmethod
    def joined(cls, parts: Iterable[Places]) -> Places:
        """Those of several datasets, one after the other."""
        found = list(parts)
        return cls(np.concatenate([p.key for p in found]), np.concatenate([p.box for p in found]))


@dataclass(frozen=True)
class SeenSamples:
    """Samples that a generator has seen, small enough to travel with it.

    Args:
        count: how many there are.
        digests: base64 of their digests, ascending; the lowest :data:`KEPT` at most.
        places: base64 of the windows that they are cut from, of those of which it is known.
        placed: whether it is known of all.
        chosen_by: base64 of digests of validation samples: what was learnt was chosen by them, not from them.
    """

    count: int
    digests: str
    places: str = ''
    placed: bool = False
    chosen_by: str = ''

    @classmethod
    def of(cls, digests: np.ndarray, places: Places | None = None, chosen_by: np.ndarray | None = None) -> SeenSamples:
        """Of (n,) uint64 digests of what was learnt from, of its windows, and of validation samples."""
        boxes = ''
        if places is not None and len(places.key):
            rows = np.arange(len(places.key))
            if len(rows) > KEPT:  # as with digests, the same ones whatever the order
                rows = np.argsort([digest_of_text(f'{k} {b}') for k, b in zip(places.key, places.box, strict=True)])
            table = np.zeros(min(len(rows), KEPT), dtype=_BOX)
            table['key'], table['box'] = places.key[rows[:KEPT]], places.box[rows[:KEPT]]
            boxes = _packed(np.sort(table, order='key'))
        chosen = np.zeros(0, np.uint64) if chosen_by is None else chosen_by
        return cls(len(digests), _packed(_lowest(digests)), boxes, places is not None, _packed(_lowest(chosen)))

    def joined(self, other: SeenSamples) -> SeenSamples:
        """What either has seen."""
        one, two = (_unpacked(part.places, _BOX) for part in (self, other))
        boxes = np.sort(np.unique(np.concatenate([one, two])), order='key')[:KEPT]
        return SeenSamples(
            max(self.count, other.count, len(np.union1d(self.learnt, other.learnt))),
            _packed(_lowest(np.union1d(self.learnt, other.learnt))),
            _packed(boxes) if len(boxes) else '',
            self.placed and other.placed,
            _packed(_lowest(np.union1d(_digests(self.chosen_by), _digests(other.chosen_by)))),
        )

    @property
    def learnt(self) -> np.ndarray:
        """(n,) uint64 digests, ascending."""
        return _digests(self.digests)

    def shared(self, digests: np.ndarray, places: Places | None, with_choice: bool) -> np.ndarray:
        """(n,) bool, which samples it has seen, wholly or in a part of their window.

        Of their images, (n, d) uint64 digests, and windows, where they are known. ``with_choice``, what was chosen by
        counts as seen, too.
        """
        known = np.union1d(self.learnt, _digests(self.chosen_by)) if with_choice else self.learnt
        table = _unpacked(self.places, _BOX)
        # a whole image is seen where a window of it is, and a window where the whole image is
        found = (np.isin(digests, known) | np.isin(digests, table['key'])) & (digests != 0)
        seen = found.any(axis=1)
        if places is None:
            return seen
        seen |= np.isin(places.key, known) & (places.key != 0)
        starts, ends = (np.searchsorted(table['key'], places.key, side) for side in ('left', 'right'))
        for row in np.flatnonzero((ends > starts) & ~seen):
            box, others = places.box[row], table['box'][starts[row] : ends[row]]
            apart = (others[:, 1] <= box[0]) | (others[:, 0] >= box[1]) | (others[:, 3] <= box[2]) | (
                others[:, 2] >= box[3]
            )  # fmt: skip
            seen[row] = not apart.all()
        return seen


def _lowest(digests: np.ndarray) -> np.ndarray:
    found = np.unique(np.asarray(digests, dtype=np.uint64))
    return found[found != 0][:KEPT]


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode('ascii')


def _digests(text: str) -> np.ndarray:
    return _unpacked(text, np.dtype('<u8'))


def _unpacked(text: str, dtype: np.dtype) -> np.ndarray:
    try:
        raw = base64.b64decode(text, validate=True)
        return np.frombuffer(raw, dtype=dtype)
    except ValueError as error:
        raise ValueError(f'the record of seen samples is damaged: {error}') from error
