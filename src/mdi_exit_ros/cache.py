# SPDX-License-Identifier: Apache-2.0
"""Where things that can be made again are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory(kind: str) -> Path:
    """The folder for cached files of one kind, made if needed; below XDG_CACHE_HOME, by default ~/.cache."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    directory = root / "mdi_exit_ros" / kind
    directory.mkdir(parents=True, exist_ok=True)
    return directory
