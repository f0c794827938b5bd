"""Pools: what synthetic samples are drawn from, in which classes and in which order."""
