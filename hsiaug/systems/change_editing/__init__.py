"""Change pairs from single dates: regions of a mask become other classes, the two-stream model paints them."""

from .model import ChangeEditing
from .train import ChangeEditingConfig, train_change_editing

__all__ = ['ChangeEditing', 'ChangeEditingConfig', 'train_change_editing']
