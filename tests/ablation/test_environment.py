"""What a figure was measured with."""

from __future__ import annotations

import sys

import pytest

from hsiaug.ablation.environment import command


@pytest.mark.parametrize(
    ('argv', 'typed'),
    [
        (['/venv/bin/hsiaug', 'demo', '--out', 'my runs'], "hsiaug demo --out 'my runs'"),
        (['/site-packages/hsiaug/cli/__main__.py', 'demo'], 'hsiaug demo'),
        (['/site-packages/hsiaug/__main__.py', 'demo'], 'hsiaug demo'),
        (['/other/cli/__main__.py', 'demo'], '__main__.py demo'),
        (['benchmarks/gates.py', '--quick'], 'gates.py --quick'),
    ],
)
def test_the_command_can_be_typed_again(argv: list[str], typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'argv', argv)
    assert command() == typed
