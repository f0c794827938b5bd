"""The conditions of a measurement: hardware, versions, commit, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .. import __version__


def command() -> str:
    """The command line of this process, as it can be typed."""
    path = Path(sys.argv[0])
    ours = ('hsiaug', 'cli', '__main__.py'), ('hsiaug', '__main__.py')  # run by python -m
    name = 'hsiaug' if any(path.parts[-len(own) :] == own for own in ours) else path.name
    return shlex.join([name, *sys.argv[1:]])


def environment(device: str = 'cpu') -> dict[str, Any]:
    """Hardware, versions and commit that a figure was measured with."""
    versions = {'hsiaug': __version__, 'python': platform.python_version()}
    for package in ('torch', 'torchgeo', 'numpy', 'scipy', 'scikit-learn', 'lightning'):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = 'not installed'
    return {'hardware': _hardware(device), 'device': device, 'versions': versions, 'commit': _commit()}


def measured_with(plan: Mapping[str, Any]) -> str:
    """Command, hardware, commit and versions from a plan with ``'command'`` and ``'environment'``, in one line."""
    where = plan['environment']
    versions = ', '.join(f'{name} {version}' for name, version in where['versions'].items())
    return f'`{plan["command"]}`; {where["hardware"]}; commit {where["commit"]}; {versions}.'


def _hardware(device: str) -> str:
    if device.startswith('cuda') and torch.cuda.is_available():
        return str(torch.cuda.get_device_name(device))
    model = platform.processor() or platform.machine()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        model = next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        pass
    return f'{model}, {os.cpu_count()} cores'


def _commit() -> str:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ['git', 'describe', '--always', '--dirty'], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 'unknown'
    return done.stdout.strip() or 'unknown'
