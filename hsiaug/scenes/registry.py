"""TODO."""

BENCHMARK_SCENES = {}
open_benchmark_scene = None
