# SPDX-License-Identifier: Apache-2.0
"""Lets the programs of this environment find ROS packages and libraries with nothing sourced.

Set-up copies this file into the environment's site-packages, where a `.pth` line imports it at every start of Python.
The dynamic linker reads LD_LIBRARY_PATH only when a process starts, so Python has to start once more after it was set;
the ROS wheels bring a hook that does this, and beside a sourced ROS 2 it is done here.
"""

from __future__ import annotations

import os
import sys

WHEELS_HOOK = os.path.join(os.path.dirname(__file__), "ros_wheels_bootstrapper.pth")
WHEELS_HOOK_HAS_RUN = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"


def _entries(variable: str) -> list[str]:
    return [entry for entry in os.environ.get(variable, "").split(os.pathsep) if entry]


def _prepare() -> None:
    prefixes = _entries("AMENT_PREFIX_PATH")
    if sys.prefix not in prefixes:  # last: a workspace built on top comes first
        os.environ["AMENT_PREFIX_PATH"] = os.pathsep.join([*prefixes, sys.prefix])
    libraries = os.path.join(sys.prefix, "lib")
    if libraries in _entries("LD_LIBRARY_PATH"):
        return
    if os.path.isfile(WHEELS_HOOK):
        # Inherited from the Python of another environment, it would keep the wheels' hook from acting here.
        os.environ.pop(WHEELS_HOOK_HAS_RUN, None)
        return
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join([libraries, *_entries("LD_LIBRARY_PATH")])
    os.execv(sys.executable, sys.orig_argv)


_prepare()
