"""The pages of the documentation: what they show runs, what they link to is there, and the site builds."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from snippets import examples, run_example

from hsiaug.named_configs import find_config
from hsiaug.records import read_json

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PAGES = sorted(DOCS.rglob('*.md'))
RUN = [page for page in PAGES if examples(page.read_text())]


def cases(page: Path) -> Any:
    name = str(page.relative_to(DOCS))
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if name.startswith('notebooks/') else [])


@pytest.mark.parametrize('page', [*map(cases, RUN)])
def test_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {'__name__': '__main__'}
    for number, (_, source) in enumerate(examples(page.read_text()), 1):
        run_example(source, f'{page.name}, example {number}', space)


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / 'mkdocs.yml').read_text()
    for page in PAGES:
        assert f': {page.relative_to(DOCS)}' in navigation, page


def test_commands_and_options_exist() -> None:
    """What pages tell to type: commands by their names, configs by their files."""
    from hsiaug.cli import COMMANDS

    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r'^```(.*?)\n(.+?)^```', text, re.M | re.DOTALL)
        typed = '\n'.join(block for language, block in blocks if not language)
        for command in re.findall(r'^hsiaug (\w+)', typed, re.M):
            assert command in COMMANDS, (page, command)
        for config in re.findall(r'^(?:srun )?hsiaug .*--config (\S+)', typed, re.M):
            assert find_config(config).exists(), (page, config)


@pytest.mark.slow
def test_commands_are_as_one_can_type_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hsiaug.cli import main

    monkeypatch.chdir(tmp_path)
    texts = [
        block
        for page in (ROOT / 'README.md', *PAGES)
        for language, block in re.findall(r'^```(.*?)\n(.+?)^```', page.read_text(), re.M | re.DOTALL)
        if not language
    ]
    texts += [re.sub(r'^# +', '', file.read_text(), flags=re.M) for file in (ROOT / 'configs').glob('*.yaml')]
    typed = re.compile(r'^(?:srun )?(hsiaug (?!completion).+(?:(?<=\\)\n.+)*)', re.M)
    commands = {one.replace('\\\n', ' ') for text in texts for one in typed.findall(text)}
    assert len(commands) > 35
    for command in sorted(commands):
        words = shlex.split(command, comments=True)[1:]
        if {'>', '|'} & {*words} or any(word.endswith(':') for word in words):  # prose of a config's header
            continue
        with pytest.raises(SystemExit) as stopped:
            main([*words, '--print_config'])
        assert not stopped.value.code, command


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    for module in ('mkdocs', 'material', 'mkdocstrings'):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is missing; pip install 'hsiaug[docs]'")
    done = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path / 'site')],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    systems = {path.parent.name for path in (ROOT / 'hsiaug' / 'systems').glob('*/README.md')}
    for page in (
        'index',
        'glossary/index',
        'results/index',
        'api/scenes/index',
        *(f'systems/{s}/index' for s in systems),
    ):
        html = (tmp_path / 'site' / f'{page}.html').read_text()
        prose = re.sub(r'<(script|code).*?</\1>', '', html, flags=re.DOTALL)
        assert not re.search(r':(class|func|meth|data|attr):|\]\(', prose), page  # markup that was not rendered
    assert 'open_scene' in (tmp_path / 'site' / 'api' / 'scenes' / 'index.html').read_text()
    for page in (DOCS / 'notebooks').glob('*.md'):
        notebook = read_json(tmp_path / 'site' / 'notebooks' / f'{page.stem}.ipynb', 'a notebook')
        code = ['\n'.join([cell['source'], '']) for cell in notebook['cells'] if cell['cell_type'] == 'code']
        assert code == [source for _, source in examples(page.read_text())]


def test_figures_of_pages_are_drawn_by_the_script() -> None:
    drawn = re.findall(r"^    '(\w+)': lambda", (DOCS / 'images' / 'make.py').read_text(), re.M)
    shown = {name for page in PAGES for name in re.findall(r'images/((?:gallery|notebook)_\w+)\.png', page.read_text())}
    assert shown == set(drawn)
    for name in drawn:
        assert (DOCS / 'images' / f'{name}.png').stat().st_size < 150_000, name
