"""An old name of what is in :mod:`hsiaug.datasets.bank.export`."""

from .bank.export import export_bank

__all__ = ['export_bank']
