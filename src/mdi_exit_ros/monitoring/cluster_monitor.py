# SPDX-License-Identifier: Apache-2.0
"""The newest that a running cluster says of itself, heard in a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import rclpy
from rclpy.signals import SignalHandlerOptions

from mdi_exit_msgs.msg import ClusterStatus, SourceStatus, WorkerStatus
from mdi_exit_ros.nodes.conversions import MessageError, source_report_from_message, worker_report_from_message
from mdi_exit_ros.nodes.entry import make_executor
from mdi_exit_ros.nodes.topics import ClusterTopics, Topic
from mdi_exit_ros.policy.events import SourceReport, WorkerReport

SPIN_S = 0.1
STOP_TIMEOUT_S = 2.0


class WorkerSeen(NamedTuple):
    """A worker's newest report, what its process uses, and when that was heard (local monotonic clock, s)."""

    report: WorkerReport
    rss_bytes: int
    cpu_s: float
    heard_at: float


class SourceSeen(NamedTuple):
    """A source's newest report, and when it was heard (local monotonic clock, s)."""

    report: SourceReport
    heard_at: float


class ClusterSeen(NamedTuple):
    """The leading controller's newest picture: the fields of ClusterStatus that a view shows."""

    controller: str
    mode: int
    fps: float
    offered_fps: float
    accuracy: float
    exit_share: tuple[float, ...]
    exit_threshold: tuple[float, ...]
    admission_rate_hz: float
    heard_at: float


class Snapshot(NamedTuple):
    """Everything heard so far; of each node the newest alone. `model_ids` says what the workers run."""

    workers: dict[str, WorkerSeen]
    sources: dict[str, SourceSeen]
    cluster: ClusterSeen | None


class ClusterMonitor:
    """Listens on `workers`, `sources` and `cluster` between entering and leaving its context.

    Subscribes: workers, sources, cluster below `cluster_namespace`. Publishes nothing.
    """

    def __init__(self, cluster_namespace: str) -> None:
        self._topics = ClusterTopics(cluster_namespace)
        self._lock = threading.Lock()
        self._workers: dict[str, WorkerSeen] = {}
        self._sources: dict[str, SourceSeen] = {}
        self._cluster: ClusterSeen | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="monitor", daemon=True)

    def __enter__(self) -> ClusterMonitor:
        # A context of its own needs a signal setting too, or Ctrl-C ends it before its user.
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(f"mdi_exit_monitor_{os.getpid()}", start_parameter_services=False)
        self._listen_to(self._topics.workers, self._on_worker)
        self._listen_to(self._topics.sources, self._on_source)
        self._listen_to(self._topics.cluster, self._on_cluster)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(STOP_TIMEOUT_S)
        self._node.destroy_node()
        rclpy.try_shutdown()

    def snapshot(self) -> Snapshot:
        """What was heard until now."""
        with self._lock:
            return Snapshot(dict(self._workers), dict(self._sources), self._cluster)

    def _listen_to(self, topic: Topic, callback: Callable[[Any], None]) -> None:
        def guarded(message: Any) -> None:
            try:
                callback(message)
            except MessageError:
                return  # nodes count and report it; a view only shows what it understands

        self._node.create_subscription(topic.type, topic.name, guarded, topic.qos)

    def _listen(self) -> None:
        executor = make_executor()
        executor.add_node(self._node)
        while not self._stop.is_set():
            executor.spin_once(timeout_sec=SPIN_S)
        executor.remove_node(self._node)

    def _on_worker(self, message: WorkerStatus) -> None:
        report = worker_report_from_message(message)
        with self._lock:
            self._workers[message.name] = WorkerSeen(report, message.rss_bytes, message.cpu_s, time.monotonic())

    def _on_source(self, message: SourceStatus) -> None:
        report = source_report_from_message(message)
        with self._lock:
            self._sources[message.name] = SourceSeen(report, time.monotonic())

    def _on_cluster(self, message: ClusterStatus) -> None:
        seen = ClusterSeen(
            controller=message.controller,
            mode=message.mode,
            fps=message.fps,
            offered_fps=message.offered_fps,
            accuracy=message.accuracy,
            exit_share=tuple(message.exit_share),
            exit_threshold=tuple(message.exit_threshold),
            admission_rate_hz=message.admission_rate_hz,
            heard_at=time.monotonic(),
        )
        with self._lock:
            self._cluster = seen
