"""Banks: synthetic samples on disk, and other forms that they are exported to and read from."""

from .reader import BankError, SyntheticBank

__all__ = ['BankError', 'SyntheticBank']
