# SPDX-License-Identifier: Apache-2.0
"""Real node processes, and an observer among them, for tests on real DDS."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor

from mdi_exit_ros.plan import PlannedNode
from mdi_exit_ros.runner.launching import command_of, ros_arguments

START_S = 15.0
STOP_S = 8.0


class NodeProcess:
    """One node in a process of its own; what it says goes to a file."""

    def __init__(
        self, folder: Path, kind: str, name: str, namespace: str, params_file: Path | None = None, **parameters
    ):
        self.name = name
        self.log = folder / f"{name}.log"
        given = {"name": name, "cluster_namespace": namespace, **parameters}
        arguments = [f"__node:={name}", f"__ns:={namespace}"]
        arguments = [part for each in arguments for part in ("-r", each)]
        arguments += [part for key, value in given.items() for part in ("-p", f"{key}:={json.dumps(value)}")]
        arguments += ["--params-file", str(params_file)] if params_file else []
        self.begin([sys.executable, "-m", "mdi_exit_ros.nodes.entry", kind, "--ros-args", *arguments])

    def begin(self, command: list[str]) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout_s: float = 30.0) -> int:
        return self.process.wait(timeout_s)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.wait(STOP_S)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class ComposedProcess(NodeProcess):
    """Several nodes in one process, as a plan has them."""

    def __init__(self, folder: Path, nodes: Sequence[PlannedNode]):
        self.name = nodes[0].name
        self.log = folder / f"{self.name}.log"
        self.begin(command_of(nodes, ros_arguments(nodes, folder, ())))


class Observer:
    """A node of the test's own, spun while the test waits."""

    def __init__(self, namespace: str):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("observer", namespace=namespace, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def listen(self, topic) -> list:
        """The messages of a topic, growing while the test waits."""
        found: list = []
        self.node.create_subscription(topic.type, topic.name, found.append, topic.qos)
        return found

    def publisher(self, topic):
        return self.node.create_publisher(topic.type, topic.name, topic.qos)

    def wait_until(self, condition, timeout_s: float = START_S, what: str = "") -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"waited {timeout_s} s in vain for {what or 'the condition'}"
            self.executor.spin_once(timeout_sec=0.02)

    def service(self, kind, name: str):
        """What asks a service that has been found: a function of the request and of `timeout_s`."""
        client = self.node.create_client(kind, name)
        self.wait_until(client.service_is_ready, what=name)

        def ask(request, timeout_s: float = START_S):
            future = client.call_async(request)
            self.wait_until(future.done, timeout_s, what=f"an answer of {name}")
            return future.result()

        return ask

    def call(self, kind, service: str, request, timeout_s: float = START_S):
        return self.service(kind, service)(request, timeout_s)

    def pause(self, duration_s: float) -> None:
        """Spins for so long."""
        end = time.monotonic() + duration_s
        self.wait_until(lambda: time.monotonic() > end, 2.0 * duration_s + START_S)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@contextlib.contextmanager
def graph(folder: Path, namespace: str):
    """Starts nodes by `start(kind, name, **parameters)`; ends what still runs."""
    nodes: list[NodeProcess] = []

    def start(kind: str | Sequence[PlannedNode], name: str = "", **parameters) -> NodeProcess:
        if not isinstance(kind, str):
            nodes.append(ComposedProcess(folder, kind))
            return nodes[-1]
        nodes.append(NodeProcess(folder, kind, name, namespace, **parameters))
        return nodes[-1]

    observer = Observer(namespace)
    try:
        yield start, observer
        for node in nodes:
            assert "Traceback" not in node.said(), node.said()
    finally:
        for node in nodes:
            node.kill()
        observer.close()
