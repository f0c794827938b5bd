"""Batches with an exact real/synthetic composition."""

from .mixed import MixedBatchSampler, mixed_loader

__all__ = ['MixedBatchSampler', 'mixed_loader']
