# SPDX-License-Identifier: Apache-2.0
"""Every topic, its type and its quality of service."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from mdi_exit_msgs.msg import (
    Classification,
    ClusterStatus,
    Policy,
    ResultBatch,
    SourceStatus,
    TaskBatch,
    WorkerStatus,
)
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.task import NAME_MAX, NAMESPACE

PEERS_MAX = 32  # nodes of a kind in one cluster
STATUS_DEPTH = 4 * PEERS_MAX
# Depths of tasks and results exceed the credit that is given out, so that reliable keep-last overwrites nothing.
ROOM_MAX = 4096  # the largest queue_capacity; to it come batches that open streams
RESULTS_DEPTH = 8192  # frames of one source that are in flight, each in several attempts


class Topic(NamedTuple):
    """One topic as one side opens it."""

    name: str
    type: Any
    qos: QoSProfile


def _reliable(depth: int) -> QoSProfile:
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def _latched(depth: int) -> QoSProfile:
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


# In the robot's namespace; names are relative and may be remapped.
IMAGE = Topic("image", Image, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
CLASSIFICATION = Topic("classification", Classification, _reliable(256))  # answers come many at once
DIAGNOSTICS = Topic("/diagnostics", DiagnosticArray, _reliable(10))


def compressed(image: str) -> Topic:
    """The compressed twin of the image topic `image`, named as image_transport does."""
    return Topic(f"{image}/compressed", CompressedImage, IMAGE.qos)


class ClusterTopics:
    """The topics by which the computers of one cluster share work."""

    def __init__(self, namespace: str) -> None:
        base = namespace.rstrip("/")
        base = f"/{base}" if base and not base.startswith("/") else base
        if base and (not NAMESPACE.fullmatch(base) or len(base) > NAME_MAX):
            raise ConfigurationError(f"cluster_namespace: expected a namespace such as /mdi_exit, got {namespace!r}")
        self._base = f"{base}/"
        self.workers = Topic(f"{self._base}workers", WorkerStatus, _reliable(STATUS_DEPTH))
        self.sources = Topic(f"{self._base}sources", SourceStatus, _reliable(STATUS_DEPTH))
        self.policy_out = Topic(f"{self._base}policy", Policy, _latched(1))
        self.policy_in = Topic(f"{self._base}policy", Policy, _latched(PEERS_MAX))
        self.cluster = Topic(f"{self._base}cluster", ClusterStatus, _reliable(10))

    def tasks(self, worker: str, room: int = ROOM_MAX) -> Topic:
        """Where the named worker takes tasks; its own end keeps no more batches than the frames it has `room` for."""
        return Topic(f"{self._base}{_checked(worker)}/tasks", TaskBatch, _reliable(room + STATUS_DEPTH))

    def results(self, source: str) -> Topic:
        """Where the named source takes answers."""
        return Topic(f"{self._base}{_checked(source)}/results", ResultBatch, _reliable(RESULTS_DEPTH))


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or len(name) > NAME_MAX:
        raise ConfigurationError(
            f"expected a name of up to {NAME_MAX} letters, digits and _ that does not start with a digit, "
            f"got {name[: NAME_MAX + 1]!r}"
        )
    return name
