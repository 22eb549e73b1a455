import subprocess
import sys
import threading

import pytest
from helpers import ROOT

from lesions.common.threads import thread_pool


def test_work_is_done_before_the_block_ends() -> None:
    done: list[int] = []
    with thread_pool(2) as pool:
        for number in range(50):
            pool.submit(done.append, number)
    assert sorted(done) == list(range(50))


def test_an_error_waits_for_what_runs() -> None:
    running, done = threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        threading.Event().wait(0.2)
        done.set()

    with pytest.raises(ValueError, match="bad photo"), thread_pool(1) as pool:  # noqa: PT012
        pool.submit(work)
        running.wait()
        raise ValueError("bad photo")
    assert done.is_set()


STUCK = """
import threading
from lesions.common.errors import run_cli
from lesions.common.threads import thread_pool

def main() -> None:
    lock, running = threading.Lock(), threading.Event()
    def work() -> None:
        running.set()
        lock.acquire()
    lock.acquire()
    with thread_pool(1) as pool:
        pool.submit(work)
        running.wait()
        INTERRUPT

run_cli(main)
"""


@pytest.mark.parametrize(
    "interrupt",
    [
        "raise KeyboardInterrupt",
        # What an interruption at the end of `with threading.Condition()` becomes.
        "try: raise KeyboardInterrupt\n        finally: raise RuntimeError",
    ],
)
def test_ctrl_c_ends_a_program_whose_worker_waits_for_ever(interrupt: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK.replace("INTERRUPT", interrupt)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 130
    assert done.stderr == "interrupted: no half-written file is left\n"
