"""Processes of a simulation that end with it: Ctrl-C is heard by the one that was started, which ends the others at
once and says in one line what is left, not by each of them in a traceback."""

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def processes(number: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes. Submit to it within ``interrupts_held``, since that is when they begin."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ignore Ctrl-C for a moment: a process that begins under it never listens to it. Only the main thread may, and
    only it is interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
