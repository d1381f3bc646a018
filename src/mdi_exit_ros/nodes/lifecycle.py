# SPDX-License-Identifier: Apache-2.0
"""A lifecycle node around a core: one lock, one monotonic clock, one thread that ticks when the core wants to."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions

from mdi_exit_ros.errors import ConfigurationError, MdiExitError, MessageError
from mdi_exit_ros.nodes.local_delivery import LocalDelivery
from mdi_exit_ros.nodes.parameters import NodeConfig, declare
from mdi_exit_ros.nodes.serialized import leading_string
from mdi_exit_ros.nodes.topics import ClusterTopics, Topic
from mdi_exit_ros.policy.actions import Finished, Warn
from mdi_exit_ros.policy.cadence import SHORTEST_TICK_S
from mdi_exit_ros.policy.events import Shutdown, Tick
from mdi_exit_ros.task import PeerId

IDLE_TICK_S = 1.0
STOP_TIMEOUT_S = 2.0  # for a core to end what it holds
DELIVERY_TIMEOUT_S = 0.3  # for last words to be acknowledged
WARNINGS_MAX = 1000

ConfigT = TypeVar("ConfigT", bound=NodeConfig)


class Core(Protocol):
    """What a node needs of the core that it carries."""

    def handle(self, event: Any, now: float) -> Iterable[Any]: ...

    def next_deadline(self) -> float | None: ...


class CoreNode(LifecycleNode):
    """Carries a core through the lifecycle.

    configure opens model and endpoints, activate starts a new life of the core, deactivate ends it.
    Subclasses fill in `open`, `start`, `perform` and, where needed, `housekeeping`, `halt` and `close`.
    Messages become events outside the lock; `feed` and everything it performs runs under it.

    Args:
        local: of all nodes of this process; None: the node has the process for itself.
    """

    def __init__(self, kind: str, local: LocalDelivery | None) -> None:
        super().__init__(kind)
        self.local = local or LocalDelivery()
        self.condition = threading.Condition(self.local.lock)
        self.failure: MdiExitError | None = None
        self.crash: BaseException | None = None
        self.done = False
        self.core: Core | None = None
        self.finished = threading.Event()
        self._ticker: threading.Thread | None = None
        self._wakes_at = 0.0
        self._ticked_at = 0.0
        self._said: set[str] = set()
        self._last_words: list[Publisher[Any]] = []
        self._received_here: list[str] = []
        # A publish may come from any thread, and a parameter service must not wait for a callback.
        self._group = ReentrantCallbackGroup()

    def declare_config(self, config: type[ConfigT]) -> ConfigT:
        """Declares the parameters of `config`; fills in the names that all nodes have."""
        found = declare(self, config)
        self.autostart = found.autostart
        self.cluster_name = found.name or self.get_fully_qualified_name().strip("/").replace("/", "_")
        self.topics = ClusterTopics(found.cluster_namespace)
        return found

    def new_life(self) -> PeerId:
        """Name and a fresh incarnation."""
        return PeerId(self.cluster_name, secrets.randbits(63) or 1)

    # ---- filled in by the nodes ----------------------------------------------------------------------------

    def open(self) -> None:
        """Loads and opens what is needed; raises MdiExitError for what a user can put right."""
        raise NotImplementedError

    def start(self) -> Core:
        """A new core, and the threads that feed it."""
        raise NotImplementedError

    def perform(self, action: Any) -> None:
        """Does what the core asks."""
        raise NotImplementedError

    def housekeeping(self, now: float) -> float:
        """What is due at `now` besides the core's ticks; returns when the next is due (s)."""
        return now + IDLE_TICK_S

    def halt(self, core: Core) -> None:
        """Ends the threads that `start` began; `core` has ended."""

    def close(self) -> None:
        """Frees what `open` made, endpoints aside."""

    # ---- endpoints -------------------------------------------------------------------------------------------

    def open_publisher(self, topic: Topic, *, last_words: bool = False, overridable: bool = False) -> Publisher[Any]:
        """A publisher; one with `last_words` waits for their delivery when the node stops."""
        options = QoSOverridingOptions.with_default_policies() if overridable else None
        with _telling_overrides(topic):
            publisher = self.create_publisher(
                topic.type, topic.name, topic.qos, callback_group=self._group, qos_overriding_options=options
            )
        if last_words:
            self._last_words.append(publisher)
        return publisher

    def close_publisher(self, publisher: Publisher[Any]) -> None:
        """Takes back what `open_publisher` made."""
        if publisher in self._last_words:
            self._last_words.remove(publisher)
        self.destroy_publisher(publisher)

    def open_subscription(
        self, topic: Topic, callback: Callable[[Any], None], *, overridable: bool = False, raw: bool = False
    ) -> None:
        """A subscription; a message that cannot be used is counted, told once per sender and dropped.

        With `raw` the callback gets serialized bytes.
        """
        options = QoSOverridingOptions.with_default_policies() if overridable else None

        def guarded(message: Any) -> None:
            try:
                callback(message)
            except MdiExitError as error:
                self.say_once(f"message:{topic.name}:{_sender(message)}", f"dropped: {error}")

        with _telling_overrides(topic):
            self.create_subscription(
                *(topic.type, topic.name, guarded, topic.qos),
                callback_group=self._group,
                qos_overriding_options=options,
                raw=raw,
            )

    def receive_here(self, topic: Topic, receiver: Callable[[Any], None]) -> None:
        """Also takes what nodes of this process send on `topic`, as objects."""
        name = self.resolve_topic_name(topic.name)
        self.local.receive(name, receiver)
        self._received_here.append(name)

    def say_once(self, key: str, text: str) -> None:
        """Warns, once per key."""
        if key not in self._said and len(self._said) < WARNINGS_MAX:
            self._said.add(key)
            self.get_logger().warning(text)

    # ---- the core and its clock ------------------------------------------------------------------------------

    def feed(self, event: Any) -> None:
        """Gives the core an event and performs what it answers; nothing while no core lives."""
        with self.condition:
            if self.core is None:
                return
            self.step(event)
            self.settle()

    def step(self, event: Any) -> None:
        """One event, its actions, no more; under the lock."""
        assert self.core is not None
        for action in self.core.handle(event, time.monotonic()):
            match action:
                case Finished():
                    self.finished.set()
                case Warn():
                    self.say_once(action.key, action.text)
                case _:
                    self.perform(action)

    def wake(self) -> None:
        """Has the housekeeping done now; from any thread."""
        with self.condition:
            self._wakes_at = 0.0
            self.condition.notify_all()

    def settle(self) -> float:
        """After events: does the housekeeping, and makes the ticker wake when something is due before it would."""
        due = self.housekeeping(time.monotonic())
        self.local.deliver()
        deadline = self.core.next_deadline() if self.core is not None else None
        if deadline is not None:
            due = min(due, deadline)
        due = max(due, self._ticked_at + SHORTEST_TICK_S)
        if due < self._wakes_at:
            self._wakes_at = due
            self.condition.notify_all()
        return due

    def _tick(self, core: Core) -> None:
        with self.condition:
            while self.core is core:
                self._ticked_at = time.monotonic()
                deadline = core.next_deadline()
                if deadline is not None and deadline <= self._ticked_at:
                    self.step(Tick())
                self._wakes_at = float("inf")
                self._wakes_at = self.settle()
                self.condition.wait(max(0.0, self._wakes_at - time.monotonic()))

    def run_thread(self, target: Callable[..., None], *args: Any, name: str) -> threading.Thread:
        """Starts a thread whose crash ends the process instead of leaving it half alive."""

        def guarded() -> None:
            try:
                target(*args)
            except BaseException as error:  # the thread's last line: kept, and raised where the node spins
                self.crash = error

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    # ---- lifecycle -------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Opens model and endpoints."""
        self.failure = None  # of an attempt before
        return self._attempt(self.open)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts a new life."""
        return self._attempt(self._begin)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the life: what is in flight gets its end with reason `shutdown`."""
        return self._attempt(self._end)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees everything."""
        return self._attempt(self._free)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends and frees everything; the process ends."""
        self.done = True
        return self._attempt(self._end, self._free)

    def _attempt(self, *steps: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            for step in steps:
                step()
        except MdiExitError as error:
            self.failure = error
            self.get_logger().fatal(f"error: {error}")
            return TransitionCallbackReturn.FAILURE
        except BaseException as error:  # rclpy would swallow it
            self.crash = error
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _begin(self) -> None:
        self.finished.clear()
        with self.condition:
            self.carry_on(self.start())

    def carry_on(self, core: Core) -> None:
        """From now on this core decides; under the lock."""
        self.core = core
        self._ticker = self.run_thread(self._tick, core, name="ticker")

    def _end(self) -> None:
        core = self.core
        if core is None:
            return
        self.shut_down()
        with self.condition:
            self.core = None
            self.condition.notify_all()
        if self._ticker is not None:
            self._ticker.join(STOP_TIMEOUT_S)
        self.halt(core)
        for publisher in self._last_words:
            publisher.wait_for_all_acked(Duration(seconds=DELIVERY_TIMEOUT_S))

    def shut_down(self) -> None:
        """Has the core end what it holds."""
        self.feed(Shutdown())
        if not self.finished.wait(STOP_TIMEOUT_S):
            self.get_logger().warning(f"stopped with work still running after {STOP_TIMEOUT_S} s")

    def _free(self) -> None:
        self._last_words.clear()
        while self._received_here:
            self.local.withdraw(self._received_here.pop())
        for publisher in list(self.publishers):
            if publisher.topic_name.rsplit("/", 1)[-1] not in _KEPT:
                self.destroy_publisher(publisher)
        for subscription in list(self.subscriptions):
            if subscription.topic_name.rsplit("/", 1)[-1] not in _KEPT:
                self.destroy_subscription(subscription)
        self.close()


@contextlib.contextmanager
def _telling_overrides(topic: Topic) -> Iterator[None]:
    """What rclpy says of a user's quality of service, as a message for that user."""
    try:
        yield
    except (RuntimeError, ValueError, InvalidParameterTypeException) as error:
        raise ConfigurationError(
            f"qos_overrides of {topic.name}: {error}; expected such as {{reliability: reliable, depth: 64}}"
        ) from error


# What rclpy opened for itself.
_KEPT = frozenset({"parameter_events", "rosout", "transition_event", "clock"})


def _sender(message: Any) -> str:
    if isinstance(message, bytes):
        with contextlib.suppress(MessageError):
            return leading_string(message)
    for field in ("sender", "worker", "name", "controller"):
        if hasattr(message, field):
            return str(getattr(message, field))
    return ""
