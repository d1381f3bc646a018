# SPDX-License-Identifier: Apache-2.0
"""Node processes under supervisord: started together, watched, and never left behind."""

from __future__ import annotations

import configparser
import contextlib
import http.client
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from supervisor.xmlrpc import SupervisorTransport

from mdi_exit_ros.errors import MdiExitError
from mdi_exit_ros.lifetime import ENDS_WITH_PARENT, ending_with_parent

POLL_S = 0.05
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 6.0  # for a node to close its frames before it is killed
EXIT_USER_ERROR = 2  # of a node: starting it again would not help
_GROUP = "nodes"
_GONE = (OSError, http.client.HTTPException, xmlrpc.client.Error)
_DEAD = frozenset({"EXITED", "FATAL", "STOPPED", "UNKNOWN"})
_STARTED = frozenset({"STARTING", "RUNNING"})


class Program(NamedTuple):
    """One process to run; `autostart` false leaves it until `start`."""

    name: str
    command: Sequence[str]
    autostart: bool = True
    respawn: bool = False


class ProcessState(NamedTuple):
    """How a process is. `status` is its exit status once it ended: -1 after a signal."""

    name: str
    pid: int
    running: bool
    ended: bool
    status: int


class ProcessGroup:
    """Programs under one supervisord, which ends with this process, however that ends.

    Args:
        folder: where configuration and socket go; short, as sockets' names are.
        log_folder: where `<name>.log` of each program goes.
    """

    def __init__(
        self, programs: Iterable[Program], folder: Path, log_folder: Path, environment: Mapping[str, str]
    ) -> None:
        self._folder = folder
        self._log_folder = log_folder
        self._environment = environment
        self._programs = {program.name: program for program in programs}
        self._begun: set[str] = {program.name for program in self._programs.values() if program.autostart}
        self._said_before: dict[str, int] = {}  # bytes of each log that are of earlier runs
        self._socket = folder / "supervisor.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ProcessGroup:
        logs = {name: self.log(name) for name in self._programs}
        self._said_before = {name: path.stat().st_size for name, path in logs.items() if path.is_file()}
        configuration = self._folder / "supervisord.conf"
        with configuration.open("w", encoding="utf-8") as file:
            self._configuration().write(file)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--silent", "-c", str(configuration)],
            env={**self._environment, ENDS_WITH_PARENT: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._log_folder / "supervisord.stderr").open("wb"),
            start_new_session=True,  # a terminal's Ctrl-C is for the runner, which stops nodes in order
            preexec_fn=ending_with_parent(),
        )
        try:
            self._wait_for_answer(self._process)
        except BaseException:  # Ctrl-C among them: whoever is not entered is not left either
            self.__exit__()
            raise
        return self

    def _wait_for_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                log = last_lines(self._log_folder / "supervisord.stderr", 2) or "it said nothing"
                raise MdiExitError(f"supervisord did not start: {log}")
            time.sleep(POLL_S)

    def __exit__(self, *_: object) -> None:
        """Ends every process: first asked, then killed."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        self.stop()
        with contextlib.suppress(*_GONE):
            self._supervisor.shutdown()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
            process.kill()
            process.wait()

    def states(self) -> dict[str, ProcessState]:
        """How each program that was started is.

        Raises:
            MdiExitError: supervisord is gone, or about to be.
        """
        try:
            infos = self._supervisor.getAllProcessInfo()
        except _GONE as error:
            raise MdiExitError(f"supervisord, which watches the node processes, is gone: {error}") from error
        return {
            info["name"]: ProcessState(
                info["name"],
                info["pid"],
                running=info["statename"] in _STARTED,
                ended=info["name"] in self._begun and info["statename"] in _DEAD,
                status=info["exitstatus"],
            )
            for info in infos
        }

    def start(self, name: str) -> None:
        """Starts a program that was not started yet."""
        self._supervisor.startProcess(f"{_GROUP}:{name}", False)
        self._begun.add(name)

    def stop(self, names: Iterable[str] | None = None) -> None:
        """Asks the named programs (all, if none are named) to end, all at once, and waits until they have.

        A supervisord that was told by somebody else to end has all of them end: then that is waited for.
        """
        try:
            self._stop(set(self._programs if names is None else names))
        except MdiExitError:
            if self._process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(2 * STOP_TIMEOUT_S)

    def _stop(self, wanted: set[str]) -> None:
        for name, state in self.states().items():
            if name in wanted and state.running:
                with contextlib.suppress(*_GONE):  # it ended by itself in between
                    self._supervisor.stopProcess(f"{_GROUP}:{name}", False)
        deadline = time.monotonic() + 2 * STOP_TIMEOUT_S
        while time.monotonic() < deadline and any(state.pid for name, state in self.states().items() if name in wanted):
            time.sleep(POLL_S)

    def log(self, name: str) -> Path:
        """The file with everything that a program printed."""
        return self._log_folder / f"{name}.log"

    def complaint(self, name: str) -> str:
        """The line by which a program said in this run why it ended; its last line where there is none."""
        lines = [line for line in _lines(self.log(name), self._said_before.get(name, 0)) if line.strip()]
        errors = [
            number
            for number, line in enumerate(lines)
            if line.startswith("error:") or "[ERROR]" in line or "[FATAL]" in line
        ]
        crashes = [number for number, line in enumerate(lines) if line.startswith("Traceback ")]
        if errors and (not crashes or crashes[-1] < errors[-1]):
            lines = lines[: errors[-1] + 1]
        line = (lines or ["it said nothing"])[-1]
        return line.split("error: ", 1)[-1].strip()  # without the log's own prefix

    @property
    def _supervisor(self) -> Any:
        """The way to ask supervisord; made anew each time, as one that failed once stays broken."""
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        return xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor

    def _answers(self) -> bool:
        try:
            return bool(self._supervisor.getState()["statename"] == "RUNNING")
        except _GONE:
            return False

    def _configuration(self) -> configparser.RawConfigParser:
        sections: dict[str, dict[str, object]] = {
            "unix_http_server": {"file": self._socket, "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            "supervisord": {
                "logfile": self._log_folder / "supervisord.log",
                "pidfile": self._folder / "supervisord.pid",
                "childlogdir": self._folder,
                "nocleanup": "true",
            },
        }
        # One group, so that supervisord ends all of them at once rather than one after the other.
        sections[f"group:{_GROUP}"] = {"programs": ",".join(self._programs)}
        for program in self._programs.values():
            sections[f"program:{program.name}"] = {
                "command": shlex.join(program.command),
                "autostart": str(program.autostart).lower(),
                "autorestart": "unexpected" if program.respawn else "false",
                "exitcodes": f"0,{EXIT_USER_ERROR}",
                "startsecs": 0,  # however short its life was, its exit status says whether it is started again
                "stopsignal": "INT",
                "stopwaitsecs": int(STOP_TIMEOUT_S),
                "redirect_stderr": "true",
                "stdout_logfile": self.log(program.name),
                "stdout_logfile_maxbytes": "50MB",
                "stdout_logfile_backups": 1,
            }
        parser = configparser.RawConfigParser()
        for section, options in sections.items():
            # supervisord expands %(...)s, and takes ; after a space for a comment.
            parser[section] = {key: str(value).replace("%", "%%") for key, value in options.items()}
        return parser


def last_lines(path: Path, count: int) -> str:
    """The last `count` lines of a log in one line; nothing where there is none."""
    return " | ".join(line.strip() for line in _lines(path)[-count:])


def _lines(path: Path, begin: int = 0) -> list[str]:
    """The lines of a log behind its first `begin` bytes; all of one that is shorter, as it was begun anew."""
    try:
        said = path.read_bytes()
    except OSError:
        return []
    return said[begin if begin <= len(said) else 0 :].decode("utf-8", "replace").splitlines()
