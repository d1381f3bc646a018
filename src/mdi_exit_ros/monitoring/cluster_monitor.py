# SPDX-License-Identifier: Apache-2.0
"""The newest that a running cluster says of itself, heard in a thread of its own."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import NamedTuple

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from mdi_exit_msgs.msg import ClusterStatus, SourceStatus, WorkerStatus
from mdi_exit_ros.errors import ConfigurationError, MessageError
from mdi_exit_ros.nodes.conversions import source_report_from_message, worker_report_from_message
from mdi_exit_ros.nodes.entry import make_executor, spin_for
from mdi_exit_ros.nodes.serialized import NewestOfEach
from mdi_exit_ros.nodes.topics import ClusterTopics
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


BRING_UP = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)


class StateChange:
    """A transition that a lifecycle node was asked for."""

    def __init__(self, asking: Node, node: str, transition: int) -> None:
        self._asking = asking
        self._client = asking.create_client(ChangeState, f"{node}/change_state")
        self._request = ChangeState.Request(transition=Transition(id=transition))
        self._answer: Future | None = None

    def outcome(self) -> bool | None:
        """Whether it went through; None until the node has answered. To be asked again and again."""
        if self._answer is None and self._client.service_is_ready():
            self._answer = self._client.call_async(self._request)
        if self._answer is None or not self._answer.done():
            return None
        return bool(self._answer.result().success)

    def close(self) -> None:
        """Forgets it, answered or not."""
        self._asking.destroy_client(self._client)


class ClusterMonitor:
    """Listens on `workers`, `sources` and `cluster` between entering and leaving its context.

    Subscribes: workers, sources, cluster below `cluster_namespace`. Publishes nothing. Calls: change_state of nodes.
    """

    def __init__(self, cluster_namespace: str) -> None:
        self._topics = ClusterTopics(cluster_namespace)
        self._lock = threading.Lock()
        self._worker_news = NewestOfEach(WorkerStatus)
        self._source_news = NewestOfEach(SourceStatus)
        self._workers: dict[str, WorkerSeen] = {}
        self._sources: dict[str, SourceSeen] = {}
        self._cluster: ClusterSeen | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="monitor", daemon=True)

    def __enter__(self) -> ClusterMonitor:
        # A context of its own needs a signal setting too, or Ctrl-C ends it before its user.
        try:
            rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        except RuntimeError as error:  # RCLError
            domain = os.environ.get("ROS_DOMAIN_ID", "")
            raise ConfigurationError(
                f"ROS cannot start, with ROS_DOMAIN_ID={domain!r} (expected 0 to 232, or none): {error}"
            ) from error
        self._node = rclpy.create_node(f"mdi_exit_monitor_{os.getpid()}", start_parameter_services=False)
        for topic, put in (
            (self._topics.workers, self._worker_news.put),
            (self._topics.sources, self._source_news.put),
        ):
            self._node.create_subscription(topic.type, topic.name, put, topic.qos, raw=True)
        cluster = self._topics.cluster
        self._node.create_subscription(cluster.type, cluster.name, self._on_cluster, cluster.qos)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(STOP_TIMEOUT_S)
        self._node.destroy_node()
        rclpy.try_shutdown()

    def snapshot(self) -> Snapshot:
        """What was heard until now."""
        for message, at in self._worker_news.take():
            with contextlib.suppress(MessageError):  # nodes count and report it; a view shows what it understands
                report = worker_report_from_message(message)
                self._workers[message.name] = WorkerSeen(report, message.rss_bytes, message.cpu_s, at)
        for message, at in self._source_news.take():
            with contextlib.suppress(MessageError):
                self._sources[message.name] = SourceSeen(source_report_from_message(message), at)
        with self._lock:
            return Snapshot(dict(self._workers), dict(self._sources), self._cluster)

    def change_state(self, node: str, transition: int) -> StateChange:
        """Asks a lifecycle node for a transition, by the node's full name."""
        return StateChange(self._node, node, transition)

    def _listen(self) -> None:
        executor = make_executor()
        executor.add_node(self._node)
        while not self._stop.is_set():
            spin_for(executor, SPIN_S)
        executor.remove_node(self._node)

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
