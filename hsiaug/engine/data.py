"""What a training may be given."""

from __future__ import annotations

from torch import Tensor


def require_finite_samples(samples: Tensor, what: str = 'images', within: str = 'patches or bands') -> None:
    """Refuse samples (N, ...) of which some hold NaN or infinite values: one of them would end a training in NaN.

    Args:
        samples: to learn from.
        what: they are, for the message.
        within: what to leave out.

    Raises:
        ValueError: saying how many do.
    """
    if bad := int((~samples.isfinite().flatten(1).all(dim=1)).sum()):
        raise ValueError(f'{bad} of {len(samples)} {what} hold NaN or infinite values; leave these {within} out')


__all__ = ['require_finite_samples']
