import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hsiaug.workers import run_in_processes


def test_every_task_is_run(tmp_path: Path) -> None:
    deaf = 'import signal; assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])'  # from the beginning
    tasks = [(deaf,), *((f'open({str(tmp_path / str(k))!r}, "w").write("{k}")',) for k in range(5))]
    list(run_in_processes(exec, tasks, 2))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {str(k): str(k) for k in range(5)}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_the_first_failure_ends_all(tmp_path: Path) -> None:
    slow = [(f'import time; time.sleep(0.2); open({str(tmp_path / str(k))!r}, "w")',) for k in range(12)]
    with pytest.raises(ZeroDivisionError):
        list(run_in_processes(exec, [('1 / 0',), *slow], 1))
    assert len(list(tmp_path.iterdir())) < 6  # those that the pool had already handed out


def test_a_worker_that_dies_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match='a worker process has died'):
        list(run_in_processes(exec, [('import os; os._exit(9)',)], 1))


ENDLESS = """
import signal, sys, time
sys.path[:0] = {paths!r}
from hsiaug.workers import run_in_processes

def stop(number, frame):
    raise KeyboardInterrupt

if __name__ == '__main__':
    if {handled}:
        signal.signal(signal.SIGTERM, stop)
    work = "import os, time; open({folder!r} + str(os.getpid()), 'w').close(); time.sleep(600)"
    list(run_in_processes(exec, [(work,)] * 4, 2))
"""


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != 'linux', reason='processes are looked for in /proc')
@pytest.mark.parametrize(
    ('number', 'handled'),
    [(signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGTERM, True)],
)
def test_no_worker_outlives_its_parent(tmp_path: Path, number: signal.Signals, handled: bool) -> None:
    (tmp_path / 'pids').mkdir()
    root = Path(__file__).parents[1]
    paths = [str(root)]
    script = tmp_path / 'script.py'
    script.write_text(ENDLESS.format(paths=paths, folder=f'{tmp_path / "pids"}/', handled=handled))
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, start_new_session=True)
    workers: list[int] = []
    try:
        deadline = time.monotonic() + 120
        while len(workers) < 2 and time.monotonic() < deadline and parent.poll() is None:
            workers = [int(path.name) for path in (tmp_path / 'pids').iterdir()]
            time.sleep(0.05)
        assert len(workers) == 2
        assert all(map(running, workers))
        os.kill(parent.pid, number)
        parent.wait(timeout=60)
        assert parent.returncode != 0
        deadline = time.monotonic() + 30
        while any(map(running, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(running, workers))
    finally:
        for pid in (parent.pid, *workers):
            if running(pid):
                os.kill(pid, signal.SIGKILL)
