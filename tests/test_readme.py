import re
from pathlib import Path

README = (Path(__file__).parents[1] / 'README.md').read_text()


def test_first_two_commands() -> None:
    commands = re.findall(r'<!-- ci: \w+ -->\n```\n(.+)\n```', README)
    assert commands == ['pip install . && hsiaug demo', "pip install '.[test]' && pytest"]


def test_python_example_runs() -> None:
    (example,) = re.findall(r'```python\n(.+?)```', README, flags=re.DOTALL)
    space: dict[str, object] = {}
    exec(example, space)
    real = len(space['real'])  # type: ignore[arg-type]
    assert len(space['mixed']) == real + round(0.5 * real)  # type: ignore[arg-type]
    assert space['batch']['image'].shape[1] == 100  # type: ignore[index]


def test_links_into_the_repository_exist() -> None:
    root = Path(__file__).parents[1]
    for target in re.findall(r'\]\((?!http)([^)#]+)\)', README):
        assert (root / target).exists(), target
