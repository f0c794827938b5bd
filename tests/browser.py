"""Pages in a real browser: headless Chromium, where there is one."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

needs_browser = pytest.mark.skipif(shutil.which('chromium') is None, reason='no chromium to look at the page with')
WIDTHS = {'phone': 360, 'paper': 680, 'desktop': 1280}
FRAME = """<!doctype html><meta charset="utf-8"><body style="margin: 0">
<iframe id="page" style="border: 0; width: {width}px; height: 800px" srcdoc="{page}"></iframe><script>
onload = () => {{
  const frame = document.getElementById('page'), page = frame.contentDocument;
  page.querySelectorAll('details').forEach(x => x.open = true);
  const moves = x => getComputedStyle(x).overflowX != 'visible';
  const scrolled = x => x && (moves(x) || scrolled(x.parentElement));
  const wide = [...page.querySelectorAll('body *')].filter(
    x => x.getBoundingClientRect().right > {width} + 1 && !scrolled(x));
  frame.style.height = page.documentElement.scrollHeight + 'px';
  const text = document.createElement('pre');
  text.hidden = true;
  text.textContent = JSON.stringify([page.documentElement.scrollHeight, wide.map(x => x.outerHTML.slice(0, 80))]);
  document.body.append(text);
}}</script>"""


def looked_at(page: Path, width: int) -> tuple[Path, list[str]]:
    """A screenshot of a page in a window of some width, all folds open, and the elements that run off its side.

    The window is a frame: a browser's own is never as narrow as a phone.
    """
    frame = page.with_name(f'{page.stem}_{width}.html')
    frame.write_text(FRAME.format(width=width, page=html.escape(page.read_text())))
    chromium = ['chromium', '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars']

    def run(*options: str) -> str:
        command = [*chromium, *options, frame.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    found = re.search(r'<pre hidden="">(.*?)</pre>', run(f'--window-size={width},1000', '--dump-dom'), re.DOTALL)
    assert found is not None
    height, wide = json.loads(html.unescape(found[1]))
    picture = page.with_name(f'{page.stem}_{width}.png')
    run(f'--window-size={max(width, 500)},{height}', f'--screenshot={picture}')
    return picture, wide
