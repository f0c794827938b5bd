"""Progress bars that cost and risk nothing where they are not shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm.auto import tqdm

T = TypeVar('T')


@contextmanager
def progress_bar(shown: bool, **settings: Any) -> Iterator[Callable[..., None]]:
    """A progress bar, as the function that moves it on by so many steps and shows numbers, given by name, next to it.

    Even a disabled bar of tqdm takes a lock that forked processes share: one that is killed meanwhile leaves its
    parent waiting for ever. So there is none where none is shown.
    """
    if not shown:
        yield lambda steps, /, **numbers: None
        return
    with tqdm(**settings) as bar:

        def advance(steps: int, /, **numbers: float) -> None:
            if numbers:
                bar.set_postfix({name: f'{number:.4f}' for name, number in numbers.items()})
            bar.update(steps)

        yield advance


def with_progress(items: Iterable[T], shown: bool, **settings: Any) -> Iterable[T]:
    """Items, with a progress bar if it is ``shown``; see :func:`progress_bar`."""
    return tqdm(items, **settings) if shown else items
