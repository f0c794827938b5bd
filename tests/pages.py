"""Reports of generators, and reading a page as a browser would: what it loads, whether its tags close, what it says."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from hsiaug.report.evaluation import write_evaluation
from hsiaug.systems import Generator
from hsiaug.tasks import task_of

VOID = ('meta', 'img', 'br')


class Reader(HTMLParser):
    """What a page loads, its text by section, and whether its tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.sections: dict[str, str] = {'': ''}
        self.heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or '' for name, value in attrs if name in ('src', 'href', 'srcset', 'data')]
        if tag not in VOID:
            self.open.append(tag)
        if tag == 'h2':
            self.sections[''], self.heading = '', True

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.heading = False
        if tag == 'td':
            self.sections[self.title] += ' | '

    def handle_data(self, data: str) -> None:
        if self.heading:
            self.title = data
            self.sections[data] = ''
        elif len(self.sections) > 1:
            self.sections[self.title] += data

    def card(self, section: str, sample: int) -> str:
        """The text of one card."""
        cards = re.split(r'(?=sample \d+: )', self.sections[section])
        return next((' '.join(card.split()) for card in cards if card.startswith(f'sample {sample}: ')), '')

    def row(self, section: str, name: str) -> list[str]:
        """The cells of one row of a table after the first."""
        lines = [line for line in self.sections[section].splitlines() if line.startswith(f'{name} | ')]
        assert len(lines) == 1, lines
        return lines[0].split(' | ')[1:-1]


def reported(generator: Generator, train: Any, test: Any, out: Path, count: int, encoder: Any = None) -> str:
    """The report of a generator, written to a folder."""
    found = task_of(generator).evaluate(generator, train, test, count, encoder=encoder)
    return write_evaluation(found, generator.card(), out)
