"""Batch samplers with an exact number of real and synthetic samples per batch."""

from .mixed import MixedBatchSampler, mixed_loader

__all__ = ['MixedBatchSampler', 'mixed_loader']
