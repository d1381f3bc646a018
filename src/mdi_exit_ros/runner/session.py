# SPDX-License-Identifier: Apache-2.0
"""One run of a cluster, or of one computer's part of it: start, watch, stop, account for."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from mdi_exit_ros.errors import MdiExitError
from mdi_exit_ros.monitoring.cluster_monitor import BRING_UP, ClusterMonitor, Snapshot
from mdi_exit_ros.monitoring.view import View, open_view
from mdi_exit_ros.plan import Plan, PlannedNode, processes_of
from mdi_exit_ros.runner.launching import command_of, node_environment, ros_arguments
from mdi_exit_ros.runner.processes import EXIT_USER_ERROR, ProcessGroup, ProcessState, Program
from mdi_exit_ros.runner.quota import CpuQuotas
from mdi_exit_ros.runner.summary import worker_statistics
from mdi_exit_ros.summary import merge, with_workers
from mdi_exit_ros.task import State

POLL_S = 0.25
START_TIMEOUT_S = 90.0  # for nodes of this computer
REMOTE_PATIENCE_S = 10.0  # for workers of other computers, which may be started later
EXIT_FAILED = 1
HEARD_BY_MONITOR = ("ROS_", "FASTDDS_")  # variables of the nodes that this process's own monitor needs too


class Outcome(NamedTuple):
    """How a run ended: the sources' summaries put together (None without one), and what went wrong."""

    summary: dict[str, Any] | None
    failure: str = ""
    status: int = 0


@dataclasses.dataclass(frozen=True)
class Session:
    """What to run. `nodes` are those of the plan that this computer starts.

    Attributes:
        params_files: parameter files of the user.
        here_only: DDS discovery stays on this machine unless the user says otherwise.
        duration_s: the run ends in order so long after its sources have been started; 0: never.
        timeout_s: the run fails after it; 0: never.
        log_folder: where nodes' logs are kept; None: nowhere.
        image_topic: what a source's `image` is remapped to; empty: nothing.
        transport: name or file of the transport's profile; None: what suits the rest.
        cpu_quota: processors that each worker may use, by name.
        composed: a source shares the process of its home worker.
    """

    plan: Plan
    nodes: tuple[PlannedNode, ...]
    cluster_namespace: str
    params_files: tuple[Path, ...] = ()
    here_only: bool = True
    domain_id: int | None = None
    duration_s: float = 0.0
    timeout_s: float = 0.0
    log_folder: Path | None = None
    respawn: bool = False
    composed: bool = False
    image_topic: str = ""
    transport: str | None = None
    cpu_quota: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def run(self, console: Console) -> Outcome:
        """Runs until the sources of this computer have finished, or until Ctrl-C or SIGTERM.

        Raises:
            MdiExitError: processes cannot be supervised, or the transport cannot be used.
        """
        with tempfile.TemporaryDirectory(prefix="mdi-exit-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            log_folder = self.log_folder or folder / "log"
            log_folder.mkdir(parents=True, exist_ok=True)
            environment = node_environment(
                here_only=self.here_only,
                domain_id=self.domain_id,
                log_folder=log_folder,
                transport=self.transport,
            )
            os.environ.update({key: value for key, value in environment.items() if key.startswith(HEARD_BY_MONITOR)})
            programs = [self._program(nodes, folder) for nodes in self.processes]
            with (
                _terminable(),
                CpuQuotas(self.cpu_quota) as quotas,
                ProcessGroup(programs, folder, log_folder, environment) as group,
                ClusterMonitor(self.cluster_namespace) as monitor,
            ):
                return _Run(self, group, monitor, quotas, folder).outcome(console)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources that this computer starts."""
        return tuple(node.name for node in self.nodes if node.executable == "camera_source")

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the workers that this computer starts."""
        return tuple(node.name for node in self.nodes if node.executable == "segment_worker")

    @property
    def processes(self) -> list[tuple[PlannedNode, ...]]:
        """The nodes by the process that they run in."""
        return processes_of(self.nodes, composed=self.composed)

    def _program(self, nodes: tuple[PlannedNode, ...], folder: Path) -> Program:
        has_source = any(node.name in self.sources for node in nodes)
        alone = len(nodes) == 1
        waits = {} if alone else {"autostart": False}  # until the workers are there
        prepared = [
            node.with_parameters(summary_path=str(_summary_path(folder, node.name)), **waits)
            if node.name in self.sources
            else node
            for node in nodes
        ]
        arguments = ros_arguments(prepared, folder, self.params_files, self.image_topic if has_source else "")
        # A source that begins anew would offer its frames anew.
        return Program(
            nodes[0].name,
            command_of(prepared, arguments),
            autostart=not (has_source and alone),
            respawn=self.respawn and not has_source,
        )


def _summary_path(folder: Path, source: str) -> Path:
    return folder / f"{source}.json"


class _Failed(Exception):
    def __init__(self, text: str, status: int = EXIT_FAILED) -> None:
        super().__init__(text)
        self.status = status


class _Run:
    """A session under way."""

    def __init__(
        self, session: Session, group: ProcessGroup, monitor: ClusterMonitor, quotas: CpuQuotas, folder: Path
    ) -> None:
        self._session = session
        self._group = group
        self._monitor = monitor
        self._quotas = quotas
        self._folder = folder
        self._heard: set[str] = set()
        self._pids: dict[str, int] = {}
        self._process_of = {node.name: nodes[0].name for nodes in session.processes for node in nodes}
        self._ends_at = time.monotonic() + session.timeout_s if session.timeout_s else float("inf")

    def outcome(self, console: Console) -> Outcome:
        failure, status = "", 0
        with open_view(console, [node.name for node in self._session.plan.named("segment_worker")]) as view:
            try:
                self._wait_for_workers(view)
                self._start_sources(view)
                self._watch(view)
            except _Failed as error:
                failure, status = str(error), error.status
            except MdiExitError as error:
                failure, status = str(error), EXIT_FAILED
            except KeyboardInterrupt:
                pass
            with _undisturbed():
                view.show(self._monitor.snapshot(), "stopping")
                # A home worker that shares a source's process ends with it.
                self._group.stop(
                    self._process_of[name] for name in self._session.sources if not self._has_finished(name)
                )
                summary = self._summary(self._monitor.snapshot())
                self._group.stop()
        if self._quotas.problem:
            console.print(f"no CPU quotas: {self._quotas.problem}", soft_wrap=True)
        if summary is not None and self._session.cpu_quota:
            summary["cpu_quota"] = self._quotas.applied
        return Outcome(summary, failure, status)

    def _start_sources(self, view: View) -> None:
        for node in self._session.nodes:
            if node.executable != "camera_source":
                continue
            if self._is_alone(node.name):
                self._group.start(node.name)
            elif node.parameters.get("autostart", True):
                self._bring_up(node, view)

    def _bring_up(self, source: PlannedNode, view: View) -> None:
        """Has a source configured and activated that waits for it in the process of its home worker."""
        process = self._process_of[source.name]
        for transition in BRING_UP:
            began = time.monotonic()
            with contextlib.closing(self._monitor.change_state(source.full_name, transition)) as change:
                while (succeeded := change.outcome()) is None:
                    self._step(view, "starting")
                    if time.monotonic() - began > START_TIMEOUT_S:
                        raise _Failed(f"{source.name} did not come up within {START_TIMEOUT_S:.0f} s")
            if not succeeded:
                raise _Failed(f"{source.name}: {self._group.complaint(process)}", EXIT_USER_ERROR)

    def _is_alone(self, source: str) -> bool:
        """Whether a source has a process for itself."""
        return self._process_of[source] == source

    def _has_finished(self, source: str) -> bool:
        """Whether a source has played its input and written its summary."""
        if not self._is_alone(source):
            return self._summary_of(source).is_file()
        return source in self._states and self._states[source].ended

    def _ended_well(self, source: str, state: ProcessState) -> bool:
        return state.status == 0 if self._is_alone(source) else self._has_finished(source)

    def _summary_of(self, source: str) -> Path:
        return _summary_path(self._folder, source)

    def _wait_for_workers(self, view: View) -> None:
        began = time.monotonic()
        planned = [node.name for node in self._session.plan.named("segment_worker")]
        with_controller = any(node.executable == "controller" for node in self._session.nodes)
        while True:
            snapshot = self._step(view, self._note or "starting")
            here = [name for name in self._session.workers if name not in self._heard]
            here += ["controller"] if with_controller and snapshot.cluster is None else []
            elsewhere = [name for name in planned if name not in self._heard and name not in self._session.workers]
            waited = time.monotonic() - began
            if not here and (not elsewhere or not self._session.sources):
                return
            if here and waited > START_TIMEOUT_S:
                raise _Failed(
                    f"{', '.join(here)} did not come up within {START_TIMEOUT_S:.0f} s; "
                    f"{here[0]} said last: {self._group.complaint(here[0])}"
                )
            if not here and waited > REMOTE_PATIENCE_S:
                view.show(snapshot, f"going on without {', '.join(elsewhere)}: start them on their computers")
                return

    def _watch(self, view: View) -> None:
        sources, duration_s = self._session.sources, self._session.duration_s
        over_at = time.monotonic() + duration_s if duration_s else float("inf")
        while time.monotonic() < over_at:
            self._step(view, self._note)
            states = self._states
            if sources and all(self._has_finished(name) for name in sources):
                return
            if not sources and self._session.workers and all(states[name].ended for name in self._session.workers):
                name = self._session.workers[-1]
                raise _Failed(f"every worker here has ended; {name} said last: {self._group.complaint(name)}")

    def _step(self, view: View, note: str) -> Snapshot:
        """Waits a little, looks at everything and shows it."""
        time.sleep(POLL_S)
        snapshot = self._monitor.snapshot()
        self._heard |= {name for name, seen in snapshot.workers.items() if seen.report.state is State.RUNNING}
        self._states = self._group.states()
        for state in self._states.values():
            self._quotas.place(state.name, state.pid)
        ended = [state for state in self._states.values() if state.ended or self._began_again(state)]
        for state in ended:
            self._judge(state)
        self._note = ", ".join(f"{state.name} has ended" for state in ended if state.name not in self._session.sources)
        view.show(snapshot, note)
        if time.monotonic() > self._ends_at:
            raise _Failed(f"the run did not finish within {self._session.timeout_s:g} s")
        return snapshot

    def _began_again(self, state: ProcessState) -> bool:
        """Whether a node that was never heard is in another life than when it was last seen."""
        if not state.pid or state.name in self._heard:
            return False
        before, self._pids[state.name] = self._pids.get(state.name, state.pid), state.pid
        return before != state.pid

    _note = ""
    _states: Mapping[str, ProcessState] = {}  # before the first look

    def _judge(self, state: ProcessState) -> None:
        """A node that ends before it worked, and a source that ends badly, end the run; a worker may die later."""
        within = [name for name in self._session.sources if self._process_of[name] == state.name]
        is_source = bool(within)
        if is_source and all(self._ended_well(name, state) for name in within):
            return
        if is_source or (state.name not in self._heard and state.name in self._session.workers):
            raise _Failed(f"{state.name}: {self._group.complaint(state.name)}", self._status_of(state))
        if state.name not in self._session.workers and self._monitor.snapshot().cluster is None:
            raise _Failed(f"{state.name}: {self._group.complaint(state.name)}", self._status_of(state))

    def _status_of(self, state: ProcessState) -> int:
        """That of the run, when this process is why it ends."""
        return EXIT_USER_ERROR if state.status == EXIT_USER_ERROR else EXIT_FAILED

    def _summary(self, snapshot: Snapshot) -> dict[str, Any] | None:
        paths = [_summary_path(self._folder, name) for name in self._session.sources]
        parts = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
        if not parts or len(parts) < len(paths):
            return None
        planned = {node.name for node in self._session.plan.named("segment_worker")}
        statistics = {name: worker_statistics(seen) for name, seen in snapshot.workers.items() if name in planned}
        return with_workers(merge(parts), statistics)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, and the end of the terminal, end a run as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with _handling((signal.SIGTERM, signal.SIGHUP), interrupt):
        yield


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Stopping takes a few seconds at most; a second Ctrl-C must not leave processes behind."""
    with _handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handling(signals: Sequence[signal.Signals], handler: Any) -> Iterator[None]:
    before = [signal.signal(number, handler) for number in signals]
    try:
        yield
    finally:
        for number, former in zip(signals, before, strict=True):
            signal.signal(number, former)
