"""Real samples of scenes, and those that are held in memory."""
