# SPDX-License-Identifier: Apache-2.0
"""Whether two processes on this machine can exchange a message over ROS 2, by doing it."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier
from std_msgs.msg import String

from mdi_exit_ros.errors import ConfigurationError

ASK_INTERVAL_S = 0.1
CHILD_LIFETIME_S = 60.0  # for a child whose parent died


def middleware() -> str:
    """Name of the RMW implementation that this process uses."""
    return str(get_rmw_implementation_identifier())


def exchange(timeout_s: float = 15.0) -> float:
    """Starts a second process, asks it until it answers, and says how long the first answer took (s), start included.

    Raises:
        ConfigurationError: ROS 2 could not be started, the process ended, or no answer came in time.
    """
    topic = f"mdi_exit_doctor/x{secrets.token_hex(4)}"
    began = time.monotonic()
    context = rclpy.Context()
    try:
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy's own error type is private
        raise ConfigurationError(f"ROS 2 does not start: {error}") from error
    answers: list[str] = []
    other = subprocess.Popen([sys.executable, "-m", __name__, topic], stderr=subprocess.PIPE, text=True)
    try:
        node = rclpy.create_node("mdi_exit_doctor", context=context)
        node.create_subscription(String, f"{topic}/answer", lambda message: answers.append(message.data), 10)
        publisher = node.create_publisher(String, f"{topic}/question", 10)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        while not answers:
            if other.poll() is not None:
                assert other.stderr is not None
                last_line = (other.stderr.read().strip() or "it said nothing").splitlines()[-1]
                raise ConfigurationError(f"the second process ended with status {other.returncode}: {last_line}")
            if time.monotonic() - began > timeout_s:
                raise ConfigurationError(f"no answer from a second process in {timeout_s:.0f} s")
            publisher.publish(String(data="?"))
            executor.spin_once(timeout_sec=ASK_INTERVAL_S)
        node.destroy_node()
    finally:
        other.kill()
        other.communicate()
        rclpy.try_shutdown(context=context)
    return time.monotonic() - began


def _answer(topic: str) -> None:
    rclpy.init()
    node = rclpy.create_node("mdi_exit_doctor_peer")
    publisher = node.create_publisher(String, f"{topic}/answer", 10)
    node.create_subscription(String, f"{topic}/question", publisher.publish, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = time.monotonic() + CHILD_LIFETIME_S
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=ASK_INTERVAL_S)


if __name__ == "__main__":
    _answer(sys.argv[1])
