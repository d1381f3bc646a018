# SPDX-License-Identifier: Apache-2.0
"""Processes that end with the one that started them, by whatever cause that ends."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

ENDS_WITH_PARENT = "MDI_EXIT_ENDS_WITH_PARENT"  # in the environment of a node: it ends with whoever started it
_PR_SET_PDEATHSIG = 1


def ending_with_parent() -> Callable[[], None]:
    """What a child of this process does before it runs: ask the kernel for SIGTERM when its parent dies."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def end_with_parent() -> None:
    """Asks the same for this process, where its environment says so."""
    if os.environ.get(ENDS_WITH_PARENT):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == 1:  # it is dead already
            signal.raise_signal(signal.SIGTERM)
