# SPDX-License-Identifier: Apache-2.0
"""One run of a peer program: the same work shared through another library, as a user would start it, for its result."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from mdi_exit_ros.benchmark.programs import missing_program, program
from mdi_exit_ros.errors import MdiExitError
from mdi_exit_ros.lifetime import ending_with_parent

RUN_TIMEOUT_S = 300.0
BENCH_REQUIREMENTS = f"{sys.executable} -m pip install -c constraints.txt -r requirements-bench.txt"
REQUIREMENTS = f"{sys.executable} -m pip install -c constraints.txt -r requirements.txt"
GET_ROS = "run `make setup`, or source ROS 2"


class Peer(NamedTuple):
    """A program of benchmark/peers: its modes, the module it needs, and how to install that."""

    modes: tuple[str, ...]
    module: str
    install: str


PEERS = {
    "zeromq_pipeline": Peer(("pipeline", "farm"), "zmq", BENCH_REQUIREMENTS),
    "torch_distributed_pipeline": Peer(("pipeline",), "torch", REQUIREMENTS),
    "ray_actors": Peer(("pipeline", "farm"), "ray", BENCH_REQUIREMENTS),
    "plain_rclpy_pipeline": Peer(("pipeline",), "rclpy", GET_ROS),
}


def missing_for(name: str) -> str | None:
    """What is not there that the named peer needs, its program among it, in one line; None when it can run."""
    peer = PEERS[name]
    if importlib.util.find_spec(peer.module) is None:
        return f"{name} needs {peer.module}, which is not installed: {peer.install}"
    return missing_program(_file(name))


def _file(name: str) -> str:
    return f"peers/{name}.py"


def peer_result(
    name: str,
    mode: str,
    frames: int,
    *,
    batch: int | None = None,
    in_flight: int | None = None,
    model: str = "mobilenetv2",
    backend: str = "onnxruntime",
    precision: str = "fp32",
    workers: int | None = None,
) -> dict[str, Any]:
    """Runs a peer program in processes of its own and returns its JSON result.

    Args:
        name: a key of PEERS.
        mode: one of that peer's modes.
        frames: frames to measure, after its warm-up.
        batch: frames that travel together; the program's own choice by default.
        in_flight: batches in flight; the program's own choice by default.
        workers: of a farm, one thread each; the program's own choice by default.

    Raises:
        MdiExitError: no such peer or mode, it or its library is not there, or the run failed; then the message carries
            the last lines that it printed.
    """
    if name not in PEERS:
        raise MdiExitError(f"no peer {name!r}: expected one of {', '.join(PEERS)}")
    if mode not in PEERS[name].modes:
        raise MdiExitError(f"{name} has no mode {mode!r}: expected {' or '.join(PEERS[name].modes)}")
    if (missing := missing_for(name)) is not None:
        raise MdiExitError(missing)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [
            *(sys.executable, str(program(_file(name))), "--frames", str(frames), "--mode", mode),
            *("--model", model, "--backend", backend, "--precision", precision, "--json", str(path)),
        ]
        for option, value in (("--batch", batch), ("--in-flight", in_flight), ("--workers", workers)):
            if value is not None:
                command += [option, str(value)]
        status, output = _run(command)
        if status != 0 or not path.is_file():
            tail = " | ".join(output.strip().splitlines()[-5:])
            raise MdiExitError(f"{' '.join(command[1:])} ended with {status}: {tail}")
        result: dict[str, Any] = json.loads(path.read_text())
    return result


def _run(command: list[str]) -> tuple[int, str]:
    """Exit status and output of a command whose processes all end with it."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=ending_with_parent(),
    )
    try:
        output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise MdiExitError(f"{' '.join(command[1:])} did not finish within {RUN_TIMEOUT_S:.0f} s") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, output
