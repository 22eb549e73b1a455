"""Threads that an interruption does not wait for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def threads(count: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads, as ThreadPoolExecutor does but for Ctrl-C.

    Ctrl-C can strike while the main thread holds a lock that a worker needs (that of a future it
    asks for its result, say): to wait for the workers is then to wait for ever.
    """
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
