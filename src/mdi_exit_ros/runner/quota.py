# SPDX-License-Identifier: Apache-2.0
"""CPU quotas of worker processes, by Linux control groups: several small computers on one machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from mdi_exit_ros.errors import ConfigurationError

PERIOD_US = 10_000  # a longer one stalls a process for tens of milliseconds
SMALLEST = 0.02  # cores; the kernel takes no quota below a millisecond, and a node has to live
_GROUPS = Path("/sys/fs/cgroup")


class CpuQuotas:
    """Gives each named process a control group of its own with its share of the processors.

    Args:
        cores: processors that each may use, by name; in part below 1.

    Attributes:
        problem: why quotas cannot be applied on this computer, in words; empty where they can.
    """

    def __init__(self, cores: Mapping[str, float]) -> None:
        self._cores = cores
        self._placed: dict[str, int] = {}
        self._folder: Path | None = None
        self.problem = ""

    def __enter__(self) -> CpuQuotas:
        if self._cores:
            try:
                self._folder = _own_group() / f"mdi-exit-{os.getpid()}"
                self._folder.mkdir()
                if _is_unified():
                    (self._folder / "cgroup.subtree_control").write_text("+cpu")
                for name, cores in self._cores.items():
                    _make(self._folder / name, cores)
            except OSError as error:
                self.problem = f"{error.strerror or error}: {error.filename or self._folder}"
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the groups; their processes have ended."""
        if self._folder is not None:
            for folder in (*(self._folder / name for name in self._cores), self._folder):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    @property
    def applied(self) -> dict[str, float]:
        """Cores of each process that has its quota."""
        return {name: self._cores[name] for name in sorted(self._placed)}

    def place(self, name: str, pid: int) -> None:
        """Puts a process, with all its threads, into its group; does nothing for one that has none."""
        if self.problem or self._folder is None or name not in self._cores or not pid or self._placed.get(name) == pid:
            return
        try:
            (self._folder / name / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:
            return  # it has just ended
        except OSError as error:
            self.problem = f"{error.strerror or error}: {error.filename}"
            return
        self._placed[name] = pid


def parse_quotas(texts: tuple[str, ...], workers: tuple[str, ...]) -> dict[str, float]:
    """Cores by worker, from `CORES` for every one or `WORKER=CORES`.

    Raises:
        ConfigurationError: no number, one that is too small, or a worker that there is not.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            cores = float(value)
        except ValueError:
            cores = 0.0
        if not SMALLEST <= cores <= 1024.0 or (equals and name not in workers):
            raise ConfigurationError(
                f"--cpu-quota: expected cores from {SMALLEST} on, such as 0.4, for all or as WORKER=CORES with "
                f"one of {', '.join(workers)}; got {text!r}"
            )
        found.update(dict.fromkeys((name,) if equals else workers, cores))
    return found


def _is_unified() -> bool:
    return (_GROUPS / "cgroup.controllers").is_file()


def _own_group() -> Path:
    """The group in which groups for others may be made: the one that this process is in, or beside it in version 2.

    Raises:
        OSError: control groups are not mounted.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if _is_unified() and not controllers:
            own = _GROUPS / path.lstrip("/")
            return own if own == _GROUPS else own.parent
        if not _is_unified() and "cpu" in controllers.split(","):
            return _GROUPS / "cpu" / path.lstrip("/")
    raise FileNotFoundError(2, "no control group for cpu", str(_GROUPS))


def _make(folder: Path, cores: float) -> None:
    folder.mkdir()
    quota_us = round(cores * PERIOD_US)
    if _is_unified():
        (folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    else:
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
