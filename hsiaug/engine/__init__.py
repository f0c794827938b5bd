"""One training engine for every model: loop, checkpoints, averages, schedules, interruptions, many devices."""

from ..datasets.shared import world
from .average import Average, Best
from .run import Run
from .stream import Stream
from .training import Training

__all__ = ['Average', 'Best', 'Run', 'Stream', 'Training', 'world']
