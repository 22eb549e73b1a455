"""A thread pool that Ctrl-C does not wait for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from lesions.common.errors import is_interruption


@contextmanager
def thread_pool(count: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads, like ThreadPoolExecutor but for Ctrl-C.

    Ctrl-C can interrupt the main thread while it holds a lock that a worker needs (for example
    that of a future whose result it asks for). Waiting for the workers would then never end.
    """
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=not is_interruption(error), cancel_futures=True)
        raise
    pool.shutdown()
