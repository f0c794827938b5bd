"""Real and synthetic samples mixed at a ratio: sources, their checks, the length of an epoch, batches."""
