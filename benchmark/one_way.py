# SPDX-License-Identifier: Apache-2.0
"""How long a TaskBatch takes from one process to another on this machine, by transport and size.

Sender and receiver are two processes with the environment that node processes get; they write and read the bytes of a
message as the nodes do, and the receiver has the executor of the nodes. Time is counted from the tensor at the sender,
before its message is made, to the tensor at the receiver, on the one monotonic clock of the machine. Transports take
turns.

    python benchmark/one_way.py --transport default --transport shared_memory --json out/one_way.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mdi_exit_ros.errors import MdiExitError
from mdi_exit_ros.machine import machine
from mdi_exit_ros.runner.launching import node_environment
from mdi_exit_ros.transport import ALLOCATION_VARIABLES, TRANSPORTS

SIZES = (0, 64 * 1024, 512 * 1024)  # bytes of data in a message
WARM_UP = 20  # messages of each size that do not count
DEPTH = 4224  # as the nodes' topics of tasks
JOIN_TIMEOUT_S = 15.0
LEAVE_TIMEOUT_S = 3.0
START_S = 30.0  # of a lifetime: until the processes have found each other, and to end
SENDING_S = 0.005  # to make and send one message, at most
SLACK = 2.0  # of the time that all messages take; sleeps are longer than asked for
PLAIN = "+plain"  # suffix of a transport: without the allocation settings of the nodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--transport",
        action="append",
        metavar="NAME|FILE",
        help=f"one of {', '.join(TRANSPORTS)} or a file; with {PLAIN} behind it without the nodes' allocation "
        "settings; several times for several  [default, shared_memory]",
    )
    parser.add_argument("--size", action="append", type=int, metavar="BYTES", help=f"bytes of data  {list(SIZES)}")
    parser.add_argument("--messages", type=int, default=150, help="of each size in each turn  [%(default)s]")
    parser.add_argument("--interval-ms", type=float, default=6.0, help="between two messages  [%(default)s]")
    parser.add_argument("--repeats", type=int, default=3, help="turns  [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write results here")
    options = parser.parse_args()
    transports = options.transport or ["default", "shared_memory"]
    sizes = options.size or list(SIZES)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    delays: dict[str, dict[int, list[list[float]]]] = {name: {size: [] for size in sizes} for name in transports}
    for _ in range(options.repeats):
        for name in transports:
            turn = one_way_s(name, sizes, options.messages, options.interval_ms)
            for size in sizes:
                delays[name][size].append(turn[size])
    expected = options.messages * options.repeats
    rows = [_row(name, size, turns, expected) for name, of_size in delays.items() for size, turns in of_size.items()]
    print(f"{'transport':24} {'bytes':>8} {'p50 ms':>8} {'(of turns)':>16} {'p95 ms':>8} {'lost':>5}")
    for row in rows:
        spread = f"{row['p50_ms_min']:.2f}..{row['p50_ms_max']:.2f}"
        lost = row["sent"] - row["received"]
        where = f"{row['transport']:24} {row['bytes']:8}"
        print(f"{where} {row['p50_ms']:8.3f} {spread:>16} {row['p95_ms']:8.3f} {lost:5}")
    if options.json:
        document = {
            "method": __doc__,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "messages": options.messages,
            "interval_ms": options.interval_ms,
            "repeats": options.repeats,
            "results": rows,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def one_way_s(transport: str, sizes: list[int], messages: int, interval_ms: float) -> dict[int, list[float]]:
    """Delays (s) of the messages that arrived, by size, without those that only warm up."""
    name = transport.removesuffix(PLAIN)
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(node_environment(here_only=True, domain_id=None, log_folder=Path(folder), transport=name))
        if transport.endswith(PLAIN):
            environment = {key: value for key, value in environment.items() if key not in ALLOCATION_VARIABLES}
        topic = f"one_way/x{os.getpid()}_{time.monotonic_ns()}"
        count = messages + WARM_UP
        longest_s = START_S + lifetime_of(count * len(sizes), interval_ms)
        words = [topic, str(count), str(interval_ms), *map(str, sizes)]
        receiver = subprocess.Popen(
            [sys.executable, __file__, RECEIVE, *words], env=environment, stdout=subprocess.PIPE, text=True
        )
        sender = subprocess.Popen([sys.executable, __file__, SEND, *words], env=environment)
        try:
            output, _ = receiver.communicate(timeout=longest_s)
            sender.wait(timeout=JOIN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            sys.exit(f"error: with transport {transport} the two processes did not end within {longest_s:.0f} s")
        finally:
            for process in (receiver, sender):
                process.kill()
                process.wait()
    if receiver.returncode != 0 or sender.returncode != 0:
        sys.exit(f"error: no messages with transport {transport}: the two processes did not find each other")
    heard: dict[str, list[tuple[int, float]]] = json.loads(output.splitlines()[-1])
    return {size: [delay for number, delay in heard.get(str(size), []) if number > WARM_UP] for size in sizes}


def lifetime_of(messages: int, interval_ms: float) -> float:
    """How long a receiver of so many messages waits for all of them (s); those that are late are not lost."""
    return START_S + SLACK * messages * (interval_ms / 1000.0 + SENDING_S)


def _row(transport: str, size: int, turns: list[list[float]], sent: int) -> dict[str, Any]:
    every = sorted(delay for turn in turns for delay in turn)
    medians = [statistics.median(turn) for turn in turns if turn]
    return {
        "transport": transport,
        "bytes": size,
        "p50_ms": 1000.0 * statistics.median(every),
        "p50_ms_min": 1000.0 * min(medians),
        "p50_ms_max": 1000.0 * max(medians),
        "p95_ms": 1000.0 * every[int(0.95 * (len(every) - 1))],
        "received": len(every),
        "sent": sent,
    }


# ---- the two processes ------------------------------------------------------------------------------------------

RECEIVE, SEND = "receive", "send"


def receive(topic: str, count: int, interval_ms: float, sizes: list[int]) -> None:
    import rclpy

    from mdi_exit_msgs.msg import TaskBatch
    from mdi_exit_ros.nodes.conversions import TASK_BATCH
    from mdi_exit_ros.nodes.entry import make_executor, spin_for

    heard: dict[int, list[tuple[int, float]]] = {size: [] for size in sizes}

    def note(data: bytes) -> None:
        message = TASK_BATCH.read(data)
        delay = time.monotonic() - message.stamp
        heard[len(message.data)].append((message.sent_total, delay))

    rclpy.init()
    node = rclpy.create_node("one_way_receiver")
    node.create_subscription(TaskBatch, topic, note, DEPTH, raw=True)
    executor = make_executor()
    executor.add_node(node)
    end = time.monotonic() + lifetime_of(count * len(sizes), interval_ms)
    while time.monotonic() < end and sum(map(len, heard.values())) < count * len(sizes):
        spin_for(executor, 0.2)
    print(json.dumps(heard), flush=True)
    executor.remove_node(node)
    node.destroy_node()
    rclpy.shutdown()
    if not any(heard.values()):
        sys.exit(1)


def send(topic: str, count: int, interval_ms: float, sizes: list[int]) -> None:
    import rclpy

    from mdi_exit_msgs.msg import TaskBatch
    from mdi_exit_ros.nodes.conversions import TASK_BATCH

    rclpy.init()
    node = rclpy.create_node("one_way_sender")
    publisher = node.create_publisher(TaskBatch, topic, DEPTH)
    _wait(lambda: publisher.get_subscription_count() > 0, JOIN_TIMEOUT_S)
    time.sleep(0.5)  # the receiver may learn of the sender a little later
    for number in range(1, count + 1):
        for size in sizes:
            fields = {"sender": "worker1", "source": "camera", "model_id": "0" * 16, "sent_total": number}
            tensor = memoryview(bytes(size))
            publisher.publish(TASK_BATCH.write(**fields, stamp=time.monotonic(), data=(tensor,)))
            time.sleep(interval_ms / 1000.0)
    _wait(lambda: publisher.get_subscription_count() == 0, LEAVE_TIMEOUT_S)
    node.destroy_node()
    rclpy.shutdown()


def _wait(condition: Callable[[], bool], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


if __name__ == "__main__":
    if sys.argv[1:2] in ([RECEIVE], [SEND]):
        role, name_of_topic, number_of_messages, interval, *lengths = sys.argv[1:]
        bytes_of_data = [int(length) for length in lengths]
        if role == RECEIVE:
            receive(name_of_topic, int(number_of_messages), float(interval), bytes_of_data)
        else:
            send(name_of_topic, int(number_of_messages), float(interval), bytes_of_data)
    else:
        try:
            main()
        except MdiExitError as error:
            sys.exit(f"error: {error}")
