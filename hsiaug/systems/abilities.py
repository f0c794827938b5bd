"""What some generators can do besides drawing samples, for those who measure and draw them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Reconstructs(Protocol):
    """A generator with autoencoders, whose reconstruction of real pairs can be measured."""

    def reconstruct(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """``image`` and ``mask`` through encoder and decoder, in the sample contract."""
        ...

    def mask_cross_entropy(self, image: Tensor, mask: Tensor) -> float:
        """Cross entropy of the decoded masks, in nats, mean over pixels."""
        ...


@runtime_checkable
class Interpolates(Protocol):
    """A conditional generator that walks between two classes and two noise vectors."""

    conditional: bool

    def interpolate(self, labels: tuple[int, int], alphas: Tensor, seeds: tuple[int, int] = (0, 0)) -> Tensor:
        """(len(alphas), C) spectra between two classes and two noise vectors."""
        ...
