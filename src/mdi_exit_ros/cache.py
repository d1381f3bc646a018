# SPDX-License-Identifier: Apache-2.0
"""Where things that can be made again are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from mdi_exit_ros.errors import ConfigurationError


def cache_directory(kind: str) -> Path:
    """The folder for cached files of one kind, made if needed; below XDG_CACHE_HOME, by default ~/.cache.

    Raises:
        ConfigurationError: The folder cannot be made.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    directory = root / "mdi_exit_ros" / kind
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make the cache folder {directory} ({error.strerror}): set XDG_CACHE_HOME to a writable folder"
        ) from error
    return directory
