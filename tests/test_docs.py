"""The pages of the documentation: what they show runs, what they link to is there, and the site builds."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from snippets import examples, run_example

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PAGES = sorted(DOCS.rglob('*.md'))
RUN = [page for page in PAGES if examples(page.read_text())]


@pytest.mark.parametrize('page', RUN, ids=lambda page: str(page.relative_to(DOCS)))
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
        for config in re.findall(r'--config (\S+\.yaml)', text):
            assert (ROOT / config).exists() or (ROOT / 'configs' / config).exists(), (page, config)


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
