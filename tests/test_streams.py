"""The numbers that everything random hangs on: what was drawn with them before must be drawn again."""

import numpy as np
import pytest
import torch

from hsiaug import streams
from hsiaug.streams import as_seed, drawn_seed, seeded, stream, stream_of_process, stream_of_step, stream_seed


def test_seeds_of_numpy_are_seeds() -> None:
    assert [type(as_seed(seed)) for seed in (3, np.int64(3), np.uint8(3))] == [int] * 3
    for seed in (1.0, True, '1', None, float('nan')):
        with pytest.raises(TypeError, match='whole number'):
            as_seed(seed)


def test_streams_are_those_of_all_versions() -> None:
    of_mixing = ('POSITIONS', 'LABELS', 'DRAWS', 'SHUFFLE', 'REPLACED', 'SOURCES', 'WHICH', 'REAL')
    assert [getattr(streams, name) for name in of_mixing] == [-1, -3, -4, -5, -6, -7, -8, -9]
    assert (streams.ALTERED, streams.ALTERATIONS) == (-7, -8)
    assert stream_seed(5, 2, streams.SHUFFLE) == 7495786841371495613
    assert stream_of_step(5, 'vae', 7) == 1233686342167641917
    assert stream_of_process(stream(5), 1).initial_seed() == 2479313541719777071


def test_a_stream_is_that_of_its_seed_or_fresh() -> None:
    assert torch.equal(torch.rand(3, generator=stream(4)), torch.rand(3, generator=torch.Generator().manual_seed(4)))
    with seeded(1):
        first = stream(None)
        assert stream(None).initial_seed() != first.initial_seed()
        assert drawn_seed(stream(2)) == drawn_seed(stream(2)) != drawn_seed(stream(3))
    with seeded(1):
        assert stream(None).initial_seed() == first.initial_seed()


def test_a_seed_is_the_same_in_a_compiled_step() -> None:
    compiled = torch.compile(lambda x: x + stream_seed(5, 2) % 1000, backend='eager')  # no unsigned shift in a graph
    assert int(compiled(torch.zeros((), dtype=torch.int64))) == stream_seed(5, 2) % 1000
