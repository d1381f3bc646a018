# SPDX-License-Identifier: Apache-2.0
"""Programs of the folder `benchmark/`, which come with a checkout only, and processes that do not outlive them."""

from __future__ import annotations

import os
from pathlib import Path

from mdi_exit_ros.lifetime import ENDS_WITH_PARENT, end_with_parent
from mdi_exit_ros.resources import share_directory


def program(name: str) -> Path:
    """Where a program of `benchmark/` is, if it is there."""
    return share_directory() / "benchmark" / name


def missing_program(name: str) -> str | None:
    """That a program of `benchmark/` is not there, in one line; None when it is."""
    path = program(name)
    return None if path.is_file() else f"{path} is missing: it comes with a checkout, run this from one"


def end_with_benchmark() -> None:
    """Ends this process, which `multiprocessing` began, with the one that began it, by whatever cause that ends."""
    os.environ[ENDS_WITH_PARENT] = "1"
    end_with_parent()
