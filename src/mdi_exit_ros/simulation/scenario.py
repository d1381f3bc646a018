# SPDX-License-Identifier: Apache-2.0
"""The scenario file: which cluster is simulated, on which computers and links, with which frames and accidents."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mdi_exit_ros.errors import ConfigurationError, MdiExitError
from mdi_exit_ros.resources import share_directory
from mdi_exit_ros.simulation.costs import NodeCosts
from mdi_exit_ros.topology import meant, node_parameters, read_mapping

_SHOWN = 200  # characters of a wrong value that a message shows


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Arrivals(_Strict):
    """When a source's frames come."""

    kind: Literal["max", "periodic", "poisson", "steps", "trace"] = Field(
        default="max",
        description="max: whenever there is room; steps: periodic at rates that change; trace: at the times of a file",
    )
    rate_hz: float | None = Field(
        default=None, gt=0.0, le=1e6, description="mean frames per second, periodic and poisson"
    )
    steps: list[tuple[float, float]] | None = Field(
        default=None, description="pairs of seconds from the first frame and frames per second from then on"
    )
    trace: str | None = Field(
        default=None,
        description="file with one time in seconds per line, never decreasing; the first frame comes at once",
    )

    @model_validator(mode="after")
    def _complete(self) -> Arrivals:
        if (self.rate_hz is None) == (self.kind in ("periodic", "poisson")):
            raise ValueError("expected rate_hz with kind periodic or poisson, and with no other")
        if (self.trace is None) == (self.kind == "trace"):
            raise ValueError("expected the path of a file in trace with kind trace, and with no other")
        if (self.steps is None) == (self.kind == "steps"):
            raise ValueError("expected steps with kind steps, and with no other")
        if self.steps is not None:
            times = [at_s for at_s, _ in self.steps]
            if not times or times[0] != 0.0 or any(b <= a for a, b in itertools.pairwise(times)):
                raise ValueError(f"expected steps at times that begin with 0 and rise, got {times}")
            if not all(0.0 < rate_hz <= 1e6 for _, rate_hz in self.steps):
                raise ValueError("expected steps to rates above 0 and up to 1000000 frames per second")
        return self


class ComputerEntry(_Strict):
    """One computer."""

    cores: float = Field(default=1.0, gt=0.0, le=1024.0, description="processors that the nodes here may use")
    speed: float = Field(
        default=1.0, gt=0.0, le=1000.0, description="of one core, as a multiple of the profiled computer's"
    )
    all_busy: float = Field(
        default=1.0, gt=0.0, le=1.0, description="speed of a core while all are busy, as a share of that"
    )
    port_mbps: float | None = Field(
        default=None,
        gt=0.0,
        description="megabits per second that its network port carries in each direction, whoever it talks to; "
        "left out: no limit",
    )


class LinkEntry(_Strict):
    """What messages between computers go through."""

    rate_mbps: float | None = Field(default=None, gt=0.0, description="megabits per second; left out: no limit")
    latency_ms: float = Field(default=0.0, ge=0.0, le=60000.0)
    jitter_ms: float = Field(
        default=0.0, ge=0.0, le=60000.0, description="mean of what is added, exponentially distributed"
    )
    loss: float = Field(default=0.0, ge=0.0, lt=1.0, description="share of packets lost and sent again")
    repair_ms: float = Field(
        default=10.0, ge=0.0, le=60000.0, description="until a loss is noticed, beyond a round trip"
    )
    medium: str = Field(default="", description="name of a channel that several links share, such as wifi")


class PairEntry(LinkEntry):
    """The link between two computers, the same both ways."""

    between: tuple[str, str] = Field(description="names of two computers")

    @model_validator(mode="after")
    def _joins_two(self) -> PairEntry:
        if self.between[0] == self.between[1]:
            raise ValueError("expected between with two different computers")
        return self


class EventEntry(_Strict):
    """Something that happens."""

    at_s: float = Field(ge=0.0)
    worker: str = ""
    do: Literal["kill", "stop", "start", "speed", "model", "link"] = Field(
        description="kill: gone without a word; stop: in order; start: a new life; speed: its computer's from now on; "
        "model: all change to another; link: that of two computers, for what is sent from now on"
    )
    speed: float | None = Field(default=None, gt=0.0, le=1000.0)
    model: str | None = Field(default=None, description="shipped model or model folder")
    link: PairEntry | None = None

    @model_validator(mode="after")
    def _complete(self) -> EventEntry:
        for key in ("speed", "model", "link"):
            if (getattr(self, key) is None) == (self.do == key):
                raise ValueError(f"expected {key} with do: {key}, and with nothing else")
        if bool(self.worker) == (self.do in ("model", "link")):
            raise ValueError("expected the name of a worker, but none with do: model and do: link")
        return self


class Generated(_Strict):
    """A topology made on the spot: workers on computers of their own, each joined with its nearest."""

    workers: int = Field(ge=1, le=100_000)
    neighbours: int = Field(ge=0, le=1024, description="of each worker, at most")
    sources: int = Field(default=1, ge=1, le=10_000, description="spread evenly over the workers, each with its home")


class Scenario(_Strict):
    """Everything that decides what a simulation does."""

    description: str = ""
    topology: str | Generated = Field(description="name or file of a topology, or how to make one")
    strategy: Literal["local", "ddi", "mdi", "mdi_exit"] = "mdi_exit"
    model: str = Field("mobilenetv2", description="shipped model or model folder")
    exits: bool | None = Field(
        default=None, description="whether frames may leave early; left out: as the strategy says"
    )
    thresholds: list[Annotated[float, Field(ge=0.0, le=1.0)]] | None = Field(
        default=None, description="of exits 1..K-1; left out: the model's"
    )
    seed: int = Field(default=1, ge=0)
    frames: int | None = Field(default=10_000, ge=1, le=1_000_000_000, description="of each source; null: endless")
    duration_s: float | None = Field(default=None, gt=0.0, description="end after so many simulated seconds")
    arrivals: Arrivals = Arrivals()
    arrivals_of: dict[str, Arrivals] = Field(default={}, description="by source, where they differ")
    profile: str = Field(
        default="shipped", description="times of segments: shipped, measured (this computer's), or a file"
    )
    backend: str | None = Field(default=None, description="left out: the fastest of the profile in that precision")
    precision: Literal["fp32", "bf16"] = "fp32"
    recording: str | None = Field(default=None, description="answers of the exits; left out: the model's own")
    autoencoder: bool = Field(
        default=True,
        description="false: features travel as wide as without the model's autoencoders; times and answers are taken "
        "for the same",
    )
    together: bool = Field(
        default=False, description="all nodes on the one computer `computer`, as mdi-exit run has them"
    )
    computer: ComputerEntry = ComputerEntry()
    computers: dict[str, ComputerEntry] = Field(default={}, description="by name, where they differ from `computer`")
    quotas: dict[str, Annotated[float, Field(gt=0.0, le=1024.0)]] = Field(
        default={}, description="processors that a worker may use, by worker, apart from its computer's others"
    )
    network: LinkEntry = LinkEntry()
    links: list[PairEntry] = Field(default=[], description="where they differ from `network`")
    reach: int | None = Field(
        default=None,
        ge=1,
        description="hops from its home up to which a source and workers hear each other, while workers hear their "
        "neighbours alone; left out: everybody hears everybody, as the ROS nodes do",
    )
    costs: NodeCosts = NodeCosts()
    worker: dict[str, Any] = Field(default={}, description="parameters of every worker, as in nodes.yaml")
    source: dict[str, Any] = Field(default={}, description="parameters of every source")
    controller: dict[str, Any] = Field(default={}, description="parameters of the controller")
    nodes: dict[str, dict[str, Any]] = Field(
        default={}, description="parameters of single nodes, by name, where they differ"
    )
    events: list[EventEntry] = []

    @model_validator(mode="after")
    def _ends(self) -> Scenario:
        if self.frames is None and self.duration_s is None:
            raise ValueError("frames, duration_s: expected a number in one of them, as it never ends else; got null")
        if self.together and (self.links or self.computers or any(event.link for event in self.events)):
            raise ValueError("together: everything is on the one computer: expected neither links nor computers")
        pairs = [frozenset(link.between) for link in self.links]
        for index, pair in enumerate(pairs):
            if pair in pairs[:index]:
                one, other = self.links[index].between
                raise ValueError(f"links.{index}.between: the link of {one} and {other} is there twice: expected once")
        return self


NETWORK_KEYS = ("model", "profile", "backend", "precision", "recording", "autoencoder")
"""Keys of a scenario that decide which network is simulated."""

# What a ROS node has a parameter for and a scenario a key of its own, or no use.
_SAID_BY = {
    "worker": {"backend": "backend", "precision": "precision", "device": ""},
    "source": {
        "input": "recording",
        "image_transport": "",
        "rate_hz": "arrivals",
        "frames": "frames",
        "loop": "frames",
    },
    "controller": {},
}


def known_scenarios() -> list[str]:
    """Names of the scenarios that come with the project."""
    return sorted(path.stem for path in (share_directory() / "config" / "scenarios").glob("*.yaml"))


def find_scenario(name_or_path: str | Path) -> Path:
    """The file of a shipped scenario, or a user's own.

    Raises:
        ConfigurationError: there is none.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    shipped = share_directory() / "config" / "scenarios" / f"{path.name.removesuffix('.yaml')}.yaml"
    if len(path.parts) == 1 and shipped.is_file():
        return shipped
    known = known_scenarios()
    raise ConfigurationError(
        f"no scenario {str(name_or_path)!r}{meant(path.stem, known)}: expected the path of a YAML file, "
        f"or one of {', '.join(known)}"
    )


def read_scenario_keys(name_or_path: str | Path) -> dict[str, Any]:
    """The keys of a scenario file, unchecked.

    Raises:
        ConfigurationError: no such file, or not YAML.
    """
    return read_mapping(find_scenario(name_or_path), Scenario)


def load_scenario(name_or_path: str | Path, content: dict[str, Any] | None = None) -> Scenario:
    """Reads a scenario; `content` stands in for the keys of its file.

    Raises:
        ConfigurationError: no such file, not YAML, or a key or value that cannot be used; names file and key.
    """
    path = find_scenario(name_or_path)
    return make_scenario(read_scenario_keys(path) if content is None else content, origin=path)


def make_scenario(content: dict[str, Any], *, origin: Path | str) -> Scenario:
    """A scenario from the keys of a file. Paths in it are taken from the file's folder.

    Raises:
        ConfigurationError: a key or value that cannot be used; names `origin` and key.
    """
    try:
        scenario = Scenario.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(_explain(str(origin), error)) from error
    checked = {kind: simulated_parameters(f"{origin}: {kind}", kind, getattr(scenario, kind)) for kind in _SAID_BY}
    folder = Path(origin).parent
    places: dict[str, Any] = {"arrivals": _placed(scenario.arrivals, folder)}
    places["arrivals_of"] = {name: _placed(each, folder) for name, each in scenario.arrivals_of.items()}
    places["events"] = [
        event.model_copy(update={"model": str((folder / event.model).absolute())})
        if event.model is not None and (folder / event.model).exists()
        else event
        for event in scenario.events
    ]
    for key in ("topology", "profile", "recording", "model"):
        value = getattr(scenario, key)
        if isinstance(value, str) and (folder / value).exists():
            places[key] = str((folder / value).absolute())
    return scenario.model_copy(update={**checked, **places})


def _placed(arrivals: Arrivals, folder: Path) -> Arrivals:
    if arrivals.trace is None or not (folder / arrivals.trace).exists():
        return arrivals
    return arrivals.model_copy(update={"trace": str((folder / arrivals.trace).absolute())})


def simulated_parameters(place: str, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a node or of all of a kind (`worker`, `source`, `controller`), held against what a node has.

    Raises:
        ConfigurationError: one that there is not, or that has no effect in a simulation; `place` says where it stands.
    """
    origin, _, key = place.rpartition(": ")
    found = node_parameters(origin, key, kind, given)
    for name, key in _SAID_BY[kind].items():
        if name in found:
            instead = f"expected the scenario's {key} instead" if key else "expected that it is left out"
            raise ConfigurationError(f"{place}.{name}: has no effect in a simulation: {instead}, got {found[name]!r}")
    return found


@contextmanager
def naming(origin: Path | str) -> Iterator[None]:
    """Errors in what a scenario refers to begin with the scenario's file."""
    try:
        yield
    except MdiExitError as error:
        if str(error).startswith(str(origin)):
            raise
        raise type(error)(f"{origin}: {error}") from error


def _explain(origin: str, error: ValidationError) -> str:
    """The first problem, as file, key path, value and what was expected."""
    # A misspelt key is missing as well, and a mapping that is wrong is no text either.
    first = min(error.errors(), key=lambda each: (each["type"] != "extra_forbidden", "str" in each["loc"]))
    where = [str(part) for part in first["loc"] if part not in ("str", "Generated")]
    key = ".".join(where)
    got = repr(first["input"])
    got = got if len(got) <= _SHOWN else f"{got[:_SHOWN]}..."
    match first["type"]:
        case "extra_forbidden":
            known = _keys_at(where[:-1])
            return f"{origin}: {key}: unknown key{meant(where[-1], known)}: expected one of {', '.join(known)}"
        case "missing":
            return f"{origin}: {key}: missing; it has to be given"
        case "value_error":
            text = str(first["ctx"]["error"])
            return f"{origin}: {key}: {text}, got {got}" if where else f"{origin}: {text}"
        case "literal_error":
            return f"{origin}: {key}: expected one of {first['ctx']['expected']}, got {got}"
        case "model_type":
            other = "the name or file of a topology, or " if where == ["topology"] else ""
            return f"{origin}: {key}: expected {other}a mapping with {', '.join(_keys_at(where))}, got {got}"
        case "invalid_key":
            return f"{origin}: {where[0]}: expected a word as key, got {got}"
    text = first["msg"].removeprefix("Input should be ").replace("a valid dictionary", "a mapping")
    return f"{origin}: {key}: expected {text}, got {got}"


def _keys_at(where: list[str]) -> list[str]:
    """Keys that a scenario may have at a place."""
    models: dict[str, type[BaseModel]] = {
        "arrivals": Arrivals,
        "arrivals_of": Arrivals,
        "computer": ComputerEntry,
        "computers": ComputerEntry,
        "network": LinkEntry,
        "links": PairEntry,
        "costs": NodeCosts,
        "events": EventEntry,
        "topology": Generated,
    }
    if where[2:] == ["link"]:
        return list(PairEntry.model_fields)
    return list((models.get(where[0], Scenario) if where else Scenario).model_fields)
