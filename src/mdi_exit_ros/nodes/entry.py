# SPDX-License-Identifier: Apache-2.0
"""Runs nodes as a process. Imports nothing heavy before signals are in hand, so that Ctrl-C is always quiet."""

from __future__ import annotations

import importlib
import itertools
import re
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from mdi_exit_ros.errors import BrokenError, MdiExitError
from mdi_exit_ros.lifetime import end_with_parent
from mdi_exit_ros.policy.compiled import check_checkout

if TYPE_CHECKING:
    from rclpy.executors import Executor

    from mdi_exit_ros.nodes.lifecycle import CoreNode

NODES = {
    "camera_source": "CameraSource",
    "segment_worker": "SegmentWorker",
    "controller": "Controller",
}
SPIN_S = 0.1  # how long a stop signal may go unnoticed


class StopRequest:
    """Whether SIGINT or SIGTERM came."""

    def __init__(self) -> None:
        self.requested = False
        signal.signal(signal.SIGINT, self._note)
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def make_executor() -> Executor:
    """The fastest executor that this ROS distribution has; both are driven by spin_once with a timeout."""
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        from rclpy.executors import SingleThreadedExecutor

        return SingleThreadedExecutor()
    return EventsExecutor()


def spin_for(executor: Executor, duration_s: float) -> None:
    """Has the executor handle everything that comes within `duration_s`.

    The EventsExecutor collects the entities of its nodes anew in every call, so one call per message would cost a third
    more; its `spin` with a time limit is that of a future which nobody completes.
    """
    from rclpy.task import Future

    executor.spin_until_future_complete(Future(), timeout_sec=duration_s)


def run(*kinds: str, args: list[str] | None = None) -> int:
    """Runs one node of each kind in this process until all are done, one failed, or a signal says stop.

    What nodes of one process send each other is handed over without the middleware. ROS arguments may be meant for one
    of them, such as `-r segment_worker:__node:=worker1`.

    Returns:
        Exit status: 0 after an orderly end, 2 for what a user can put right.
    """
    stop = StopRequest()
    end_with_parent()
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.signals import SignalHandlerOptions

    try:
        check_checkout()
    except MdiExitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    makers: list[Any] = [getattr(importlib.import_module(f"mdi_exit_ros.nodes.{kind}"), NODES[kind]) for kind in kinds]
    from mdi_exit_ros.nodes.local_delivery import LocalDelivery

    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # RCLError of what the command line or ROS_DOMAIN_ID say
        print(f"error: ROS arguments or environment: {_first_sentence(error)}", file=sys.stderr)
        return 2
    nodes: list[CoreNode] = []
    local = LocalDelivery()
    try:
        executor = make_executor()
        for make in makers:
            nodes.append(make(local))
            executor.add_node(nodes[-1])
        _spin(nodes, executor, stop)
        for node in reversed(nodes):
            _shut_down(node)
        for node in nodes:
            if node.crash is not None:
                raise node.crash
            executor.remove_node(node)
        return 0 if all(node.failure is None for node in nodes) else 2
    except MdiExitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ExternalShutdownException:
        return 0
    finally:
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()


def _first_sentence(error: Exception) -> str:
    """What rcl says, without the places in its sources."""
    return re.sub(r",? at [^ ]+:\d+.*", "", str(error).replace("\n", " ")).strip()


def _spin(nodes: list[CoreNode], executor: Executor, stop: StopRequest) -> None:
    for node in nodes:
        if node.autostart and not stop.requested:
            node.trigger_configure()
            if node.failure is None and node.crash is None and not stop.requested:
                node.trigger_activate()
        if node.failure is not None or node.crash is not None:
            return
    while not (stop.requested or all(node.done for node in nodes) or any(node.crash for node in nodes)):
        spin_for(executor, SPIN_S)
        if len(nodes) > 1:
            for node in nodes:
                if node.done:
                    _shut_down(node)


def _shut_down(node: CoreNode) -> None:
    """Ends the life of a node, once; the process may go on with others."""
    if node.core is not None or not node.done:
        node.trigger_shutdown()


def camera_source() -> None:
    """The camera_source process."""
    sys.exit(run("camera_source"))


def segment_worker() -> None:
    """The segment_worker process."""
    sys.exit(run("segment_worker"))


def worker_and_source() -> None:
    """A segment_worker and a camera_source in one process."""
    sys.exit(run("segment_worker", "camera_source"))


def controller() -> None:
    """The controller process."""
    sys.exit(run("controller"))


if __name__ == "__main__":
    given = list(itertools.takewhile(lambda word: word in NODES, sys.argv[1:]))
    if not given or len(set(given)) < len(given):
        sys.exit(f"error: expected one or several of {', '.join(NODES)}, each once, then ROS arguments")
    sys.exit(run(*given, args=sys.argv[1 + len(given) :]))
