"""TODO."""

open_scene = None
