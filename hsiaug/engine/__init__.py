"""One training engine for every model: loop, checkpoints, averages, schedules, interruptions, many devices."""

from .average import Average
from .run import Run, world
from .stream import Stream
from .training import Training

__all__ = ['Average', 'Run', 'Stream', 'Training', 'world']
