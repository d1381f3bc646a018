# SPDX-License-Identifier: Apache-2.0
"""What this package was installed with, for a program of another Python: `ros2` is one of the system's."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mdi_exit_ros.resources import PACKAGE, share_directory

# The first lines of an installed program; the second form is for interpreters with a long or spaced path.
_INTERPRETER = re.compile(
    r"""\A#!(?:/bin/sh\n'''exec' (?P<quote>"?)(?P<long>/.+?)(?P=quote) |(?P<plain>/[^\n]+?)[ \t]*\n)"""
)


def interpreter_of(program: Path) -> Path | None:
    """The Python that an installed program names in its first lines; None where there is none to be read."""
    try:
        head = program.read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError:
        return None
    found = _INTERPRETER.match(head)
    return Path(found["plain"] or found["long"]) if found else None


def site_packages_of(interpreter: Path) -> Path | None:
    """Where the virtual environment of `interpreter` keeps packages for this version of Python; None without one."""
    environment = interpreter.parent.parent
    packages = environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    return packages if (environment / "pyvenv.cfg").is_file() and packages.is_dir() else None


@contextlib.contextmanager
def seen_first() -> Iterator[None]:
    """While it lasts, imports find the packages that this package's installed programs run with, before all others.

    A colcon workspace that was built in a virtual environment needs it wherever the system's Python imports from it:
    the system's pydantic, for one, may be too old.
    """
    interpreter = interpreter_of(share_directory().parents[1] / "lib" / PACKAGE / "mdi-exit")
    packages = site_packages_of(interpreter) if interpreter is not None else None
    if packages is None or str(packages) in sys.path:
        yield
        return
    sys.path.insert(0, str(packages))
    try:
        yield
    finally:
        sys.path.remove(str(packages))
        sys.path.append(str(packages))  # for what is imported later
