# SPDX-License-Identifier: Apache-2.0
"""Many simulations side by side, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any


def side_by_side(
    work: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    jobs: int,
    *,
    begin: Callable[..., None] | None = None,
    given: tuple[Any, ...] = (),
) -> Iterator[tuple[int, Any]]:
    """What `work` answers to each of `arguments`, with its place among them, as the answers come.

    An error of one, or Ctrl-C here, ends all at once; Ctrl-C is for this process alone.

    Args:
        work: a function of a module.
        arguments: for each call; begun in this order.
        jobs: processes.
        begin: called in each process first, with `given`.
    """
    context = multiprocessing.get_context("spawn")
    jobs = min(jobs, len(arguments))
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(begin, given)) as pool:
        futures = {pool.submit(work, *each): place for place, each in enumerate(arguments)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _begin(begin: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin(*given)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its processes, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
