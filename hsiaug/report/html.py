"""Pages that stand alone: what they are built of, and how they are written."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.image import imsave

from ..ablation.environment import command, environment
from ..ablation.experiment import markdown_table
from ..records import in_markdown, written_whole


@dataclass(frozen=True)
class Picture:
    """A picture that a page holds itself."""

    png: bytes
    caption: str
    pixels: bool = False  # its pixels are those of an image: they are enlarged without smoothing
    file: str = ''  # where a page in Markdown finds it, from its own folder

    @classmethod
    def of_figure(cls, figure: Figure, caption: str) -> Picture:
        """A figure."""
        return cls(figure_png(figure, 110), caption)

    @classmethod
    def of_pixels(cls, picture: np.ndarray, caption: str) -> Picture:
        """A small (H, W, 3) picture in 0..1."""
        buffer = io.BytesIO()
        imsave(buffer, np.ascontiguousarray(picture), format='png')
        return cls(buffer.getvalue(), caption, pixels=True)

    @property
    def uri(self) -> str:
        """The picture as a page holds it."""
        return f'data:image/png;base64,{base64.b64encode(self.png).decode("ascii")}'

    @property
    def link(self) -> str:
        """The file as a link: names may hold per cents, commas and brackets."""
        return quote(self.file)

    @property
    def width(self) -> int:
        """In pixels, from the PNG's header."""
        return int.from_bytes(self.png[16:20])


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


@dataclass(frozen=True)
class Cards:
    """Samples next to each other; ``legend`` holds names and colours ``#rrggbb``."""

    legend: Sequence[tuple[str, str]]
    cards: Sequence[Card]


Part = str | Table | Picture | Cards
"""What a section holds: paragraphs of text, tables, figures, samples."""


@dataclass(frozen=True)
class Section:
    """A titled section of a page, of parts in any order."""

    title: str
    parts: Sequence[Part]


def figure_png(figure: Figure, dpi: int = 130) -> bytes:
    """A figure as PNG, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=dpi, metadata={'Software': None})
    return buffer.getvalue()


def template(name: str) -> Any:
    """A template of this room; whatever it is given is escaped in ``.html`` ones, in others by ``| plain``."""
    environment = Environment(
        loader=PackageLoader('hsiaug.report', 'templates'),
        autoescape=name.endswith('.html.j2'),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['plain'] = _plain
    environment.filters['table'] = lambda one: markdown_table(
        [*map(_plain, one.header)], [[*map(_plain, row)] for row in one.rows]
    )
    return environment.get_template(name)


def _plain(text: object) -> str:
    """Text for Markdown; figures and intervals, in which nothing can be markup, stay as they are."""
    return in_markdown(str(text)) if re.search(r'[^\W\d_]', str(text)) else str(text)


def markdown(sections: Sequence[Section]) -> str:
    """Sections in Markdown."""
    return str(template('sections.md.j2').render(sections=sections))


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
