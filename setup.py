"""The packages of a wheel: ``hsiaug``, and ``configs`` as ``hsiaug/configs``. All else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=['hsiaug*']), 'hsiaug.configs'], package_dir={'hsiaug.configs': 'configs'})
