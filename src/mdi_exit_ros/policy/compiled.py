# SPDX-License-Identifier: Apache-2.0
"""Whether the decisions run as Python, or as the C extensions that `make compiled` made of it."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from mdi_exit_ros.errors import ConfigurationError

POLICY = Path(__file__).resolve().parent
SUFFIX = EXTENSION_SUFFIXES[0]


def is_compiled() -> bool:
    """Whether they run as C extensions."""
    return (POLICY / f"worker{SUFFIX}").is_file()


def check_checkout(folder: Path = POLICY) -> None:
    """Refuses extensions of a checkout that are older than their source, rather than deciding as it did before.

    Raises:
        ConfigurationError: one is.
    """
    if not (folder.parents[2] / "package.xml").is_file():
        return  # installed: all files are of one moment
    for compiled in [*folder.glob(f"*{SUFFIX}"), *folder.parent.glob(f"*{SUFFIX}")]:
        if "__mypyc" in compiled.name:
            continue
        source = compiled.with_name(compiled.name.removesuffix(SUFFIX) + ".py")
        if not source.is_file() or compiled.stat().st_mtime < source.stat().st_mtime:
            raise ConfigurationError(
                f"{compiled} was compiled before {source.name} changed: run make compiled again, or make interpreted"
            )
