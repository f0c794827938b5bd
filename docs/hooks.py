"""Pages of the site that are made from files of the repository, so that nothing is written twice."""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'hsiaug'
REPOSITORY = 'https://github.com/hsiaug/hsiaug/blob/main/'
SYSTEMS = {p.parent.name: p.relative_to(ROOT).as_posix() for p in sorted(PACKAGE.glob('systems/*/README.md'))}
PAGES = {
    'results.md': 'benchmarks/results/README.md',
    'contributing.md': 'CONTRIBUTING.md',
    'changelog.md': 'CHANGELOG.md',
    **{f'systems/{name}.md': source for name, source in SYSTEMS.items()},
}
"""Page to the file that it shows."""
GLOSSARY = '## Glossary\n'
ALIASES = ('cli', 'generators', 'settings', 'progress', 'json_lines', 'records')
"""Of no use to those who call the library, or other names of what is documented."""


def on_config(config: Any) -> Any:
    """Fill the two parts of the navigation that follow from the package."""
    for entry in config.nav:
        (title,) = entry
        if title == 'Systems':
            entry[title] = ['systems/index.md', *sorted(page for page in PAGES if page.startswith('systems/'))]
        if title == 'API':
            entry[title] = ['api/index.md', *({f'hsiaug.{name}': f'api/{name}.md'} for name, _ in _rooms())]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    texts = {page: _linked((ROOT / source).read_text(), source, page) for page, source in PAGES.items()}
    texts['glossary.md'] = '# Glossary\n' + (ROOT / 'docs/architecture.md').read_text().split(GLOSSARY)[1]
    texts['systems/index.md'] = '\n'.join(_systems())
    rooms = dict(_rooms())
    lines = [f'| [`hsiaug.{name}`]({name}.md) | {about} |' for name, (about, _) in rooms.items()]
    texts['api/index.md'] = '\n'.join(['# API', '', '| module | contents |', '|---|---|', *lines])
    for name, (_, members) in rooms.items():
        listed = ''.join(f'\n        - {member}' for member in members)
        texts[f'api/{name}.md'] = f'# hsiaug.{name}\n\n::: hsiaug.{name}\n    options:\n      members:{listed}\n'
    for page in sorted((ROOT / 'docs/notebooks').glob('*.md')):
        texts[f'notebooks/{page.stem}.ipynb'] = json.dumps(notebook(page.read_text()), indent=1)
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The glossary, which ends the architecture page, has a page of its own here; notebooks can be had as such."""
    if page.file.src_uri.startswith('notebooks/'):
        name = Path(page.file.src_uri).stem
        return f'{markdown}\n[This page as a Jupyter notebook]({name}.ipynb){{ download }}\n'
    if page.file.src_uri != 'architecture.md':
        return markdown
    return markdown.split(GLOSSARY)[0] + 'The [glossary](glossary.md) explains the terms used throughout.\n'


def on_page_content(html: str, **_: Any) -> str:
    """Turn Sphinx's roles, which editors understand in docstrings, into links."""

    def link(found: re.Match[str]) -> str:
        short, name = found[1].startswith('~'), found[1].lstrip('~.')
        shown = name.rsplit('.', 1)[-1] if short else name
        return f'<autoref optional identifier="{name}"><code>{shown}</code></autoref>'

    return re.sub(r':(?:class|func|meth|attr|data|mod|exc):<code>([~.\w]+)</code>', link, html)


def notebook(text: str) -> dict[str, Any]:
    """A page as a Jupyter notebook: each block of Python a cell with its output, and what stands between them."""
    cells: list[dict[str, Any]] = []
    block = r'^```python\n(.+?)^```\n(?:\n```text\n(.+?)^```\n)?'
    for number, part in enumerate(re.split(block, text, flags=re.DOTALL | re.MULTILINE)):
        common = {'id': f'cell-{number}', 'metadata': {}, 'source': (part or '').strip()}
        if number % 3 == 1:
            cells.append({'cell_type': 'code', 'execution_count': None, 'outputs': [], **common})
        elif number % 3 == 2 and part:
            cells[-1]['outputs'] = [{'output_type': 'stream', 'name': 'stdout', 'text': part}]
        elif number % 3 == 0 and common['source']:
            cells.append({'cell_type': 'markdown', **common})
    kernel = {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}
    return {'cells': cells, 'metadata': {'kernelspec': kernel}, 'nbformat': 4, 'nbformat_minor': 5}


def _linked(text: str, source: str, page: str) -> str:
    """The text with links to files of the repository turned to the page that shows them, or to the repository."""
    shown = {file: name for name, file in PAGES.items()}

    def turned(found: re.Match[str]) -> str:
        target, _, anchor = found[1].partition('#')
        if not target or re.match(r'\w+:', target):
            return found[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        anchor = anchor and f'#{anchor}'
        if (name := shown.get(file, file.removeprefix('docs/') if file.startswith('docs/') else None)) is None:
            return f']({REPOSITORY}{file}{anchor})'
        return f']({posixpath.relpath(name, posixpath.dirname(page) or ".")}{anchor})'

    text = re.sub(r'^```python \w+$', '```python', text, flags=re.M)  # a name, by which tests find a snippet
    return re.sub(r'\]\(([^)\s]+)\)', turned, text)


def _systems() -> Iterator[str]:
    yield from (
        '# Systems',
        '',
        'Every generator is registered under a name, used by `hsiaug train --generator`, `fit_generator`, banks and '
        'studies. Those that follow a paper have a page that maps its sections to functions; the others are one short '
        'file each.',
        '',
        '| registered names | description |',
        '|---|---|',
    )
    for path in sorted((PACKAGE / 'systems').iterdir()):
        text = '\n'.join(p.read_text() for p in ([path] if path.suffix == '.py' else sorted(path.rglob('*.py'))))
        names = re.findall(r"^@register\('(\w+)'\)", text, re.M)
        if not names:
            continue
        if path.name in SYSTEMS:
            title = (path / 'README.md').read_text().split('\n', 1)[0].removeprefix('# ')
            about = f'[{title}]({path.name}.md)'
        else:
            about = (ast.get_docstring(ast.parse(text)) or '').split('\n\n')[0]
            about += f' [Source]({REPOSITORY}hsiaug/systems/{path.name})'
        yield f'| {", ".join(f"`{name}`" for name in names)} | {" ".join(about.split())} |'


def _rooms() -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """Name of each public module right under the package, with the first line about it and its public names."""
    for path in sorted(PACKAGE.iterdir()):
        file, name = (path / '__init__.py' if path.is_dir() else path), path.stem
        if name.startswith('_') or name in ALIASES or file.suffix != '.py' or not file.exists():
            continue
        tree = ast.parse(file.read_text())
        members: list[str] = []
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', None) == '__all__':
                members = [e.value for e in getattr(node.value, 'elts', []) if isinstance(e, ast.Constant)]
        if not members:
            members = [n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name[0] != '_']
        if members:
            yield name, ((ast.get_docstring(tree) or '').split('\n')[0], members)
