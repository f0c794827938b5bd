"""Pages that stand alone: what they are built of, and how they are written."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.image import imsave

from ..ablation.environment import command, environment
from ..records import written_whole


@dataclass(frozen=True)
class Picture:
    """A picture that a page holds itself."""

    data: str  # data URI
    alt: str  # what it shows, in words
    pixels: bool = False  # its pixels are those of an image: they are enlarged without smoothing

    @classmethod
    def of_figure(cls, figure: Figure, alt: str) -> Picture:
        """A figure."""
        return cls(data_uri(figure_png(figure, 110)), alt)

    @classmethod
    def of_pixels(cls, picture: np.ndarray, alt: str) -> Picture:
        """A small (H, W, 3) picture in 0..1."""
        buffer = io.BytesIO()
        imsave(buffer, np.ascontiguousarray(picture), format='png')
        return cls(data_uri(buffer.getvalue()), alt, pixels=True)


@dataclass(frozen=True)
class Table:
    """A table: its header, and rows as long as it. The first column names what the others describe."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Card:
    """One sample: its title, its pictures in rows, and notes."""

    title: str
    pictures: Sequence[Sequence[Picture]]
    lines: Sequence[str]


@dataclass
class Section:
    """A part of a page, shown in the order of its fields; ``legend`` holds names and colours ``#rrggbb``."""

    title: str
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    figures: list[Picture] = field(default_factory=list)
    above_cards: str = ''
    legend: list[tuple[str, str]] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)


def figure_png(figure: Figure, dpi: int = 130) -> bytes:
    """A figure as PNG, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=dpi, metadata={'Software': None})
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG as a page holds it."""
    return f'data:image/png;base64,{base64.b64encode(png).decode("ascii")}'


def template(name: str, **filters: Any) -> Any:
    """A template of this room; whatever it is given is escaped in ``.html`` ones."""
    environment = Environment(
        loader=PackageLoader('hsiaug.report', 'templates'),
        autoescape=name.endswith('.html.j2'),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)


def write_evaluation_page(
    path: Path, title: str, warnings: Sequence[str], facts: Sequence[tuple[str, ...]], sections: Sequence[Section],
    training: str, overview: Sequence[tuple[str, str]] = (), device: str = 'cpu',
) -> None:  # fmt: skip
    """Write the page of an evaluation: warnings, facts, main figures, sections, and how it was made."""
    page = template('evaluation.html.j2').render(
        title=title, warnings=warnings, facts=facts, overview=overview, sections=sections, training=training,
        environment=environment(device), command=command(),
    )  # fmt: skip
    replace_file(path, page.encode(errors='replace'))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
