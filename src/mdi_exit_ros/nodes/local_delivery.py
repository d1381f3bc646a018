# SPDX-License-Identifier: Apache-2.0
"""What one node of a process sends another in the same process: handed over as objects, not as messages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from mdi_exit_ros.policy.events import TasksReceived


class TasksHandedOver(NamedTuple):
    """A batch of tasks and what their segment takes: one array [1, ...] per task."""

    event: TasksReceived
    values: list[NDArray[Any]]


class LocalDelivery:
    """The topics whose receiver lives in this process.

    Attributes:
        lock: of all nodes of this process, so that two that send each other something never wait for each other.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._receivers: dict[str, Callable[[Any], None]] = {}
        self._sent: deque[tuple[str, Any]] = deque()
        self._delivers = False

    def receive(self, topic: str, receiver: Callable[[Any], None]) -> None:
        """From now on `receiver` gets what is sent on `topic`, under the lock."""
        with self.lock:
            self._receivers[topic] = receiver

    def withdraw(self, topic: str) -> None:
        """Nobody receives `topic` here any more; what was not delivered is dropped."""
        with self.lock:
            self._receivers.pop(topic, None)

    def send(self, topic: str, item: Any) -> bool:
        """Queues `item` where a receiver is here; whether one is. Under the lock."""
        if topic not in self._receivers:
            return False
        self._sent.append((topic, item))
        return True

    def deliver(self) -> None:
        """Hands over what was sent, and what is sent meanwhile. Under the lock; within itself it does nothing."""
        if self._delivers:
            return
        self._delivers = True
        try:
            while self._sent:
                topic, item = self._sent.popleft()
                receiver = self._receivers.get(topic)
                if receiver is not None:
                    receiver(item)
        finally:
            self._delivers = False
