import io
import subprocess
import sys

from hsiaug.progress import progress_bar, with_progress

KILLED = """
import multiprocessing, os, signal
from tqdm.auto import tqdm
from hsiaug.progress import progress_bar, with_progress

def hold():
    lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)

lock = tqdm.get_lock()
process = multiprocessing.get_context('fork').Process(target=hold)
process.start()
process.join()
with progress_bar(False, total=3) as advance:
    advance(3)
list(with_progress(range(3), False))
print('went on', process.exitcode)
"""


def test_a_shown_bar_moves_on() -> None:
    said = io.StringIO()
    with progress_bar(True, total=3, desc='shards', file=said, mininterval=0) as advance:
        advance(2)
        advance(1)
    assert '3/3' in said.getvalue()
    said = io.StringIO()
    assert list(with_progress('ab', True, file=said, mininterval=0)) == ['a', 'b']
    assert '2/2' in said.getvalue()


def test_a_hidden_bar_waits_for_no_killed_process() -> None:
    done = subprocess.run([sys.executable, '-c', KILLED], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == 'went on -9\n', done.stderr
