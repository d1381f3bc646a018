# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit plan --rate`: the cheapest set of computers that does a frame rate at an accuracy."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from rich.table import Table

from mdi_exit_ros.cli.output import wide_console, write_json
from mdi_exit_ros.cli.plan_check import Checked, check_by_simulation, topology_keys
from mdi_exit_ros.cli.simulated_model import profile_of
from mdi_exit_ros.errors import ModelError
from mdi_exit_ros.model.card import ModelCard, load_card, promised_accuracy
from mdi_exit_ros.planner.arrangement import Arrangement
from mdi_exit_ros.planner.demand import Candidate, Demand
from mdi_exit_ros.planner.search import Answer, cheapest
from mdi_exit_ros.profile import profile_path

if TYPE_CHECKING:
    from mdi_exit_ros.cli.plan import Given


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is asked for, and from what it is worked out; see the options of `mdi-exit plan`.

    Attributes:
        latency_s: largest mean latency (s), infinite where none is asked for.
        spans: every computer holds one span of the segments only.
        profile: a file, or the words shipped or measured; None for this computer's own profile or, where it has none,
            the model's.
    """

    rate_hz: float
    target_accuracy: float
    latency_s: float
    margin: float
    spans: bool
    model: str
    profile: Path | None
    backend: str
    precision: str
    batch: int
    exits: bool
    encoding: str


def plan_rate(given: list[Given], wish: Wish, *, check: bool, json_path: Path | None) -> int:
    """Finds the set, shows it and answers with the exit status: 1 where no set does it or the check fails."""
    card = load_card(wish.model)
    source = _profile_source(card, wish.profile)
    profile = profile_of(card, source)
    times = profile.fastest(wish.precision, batch=wish.batch)
    if wish.backend != "auto":
        times = profile.of(wish.backend, wish.precision)
    segments = range(1, card.num_segments + 1)
    document: dict[str, Any] = {
        "model": card.name,
        "model_id": card.model_id,
        "profile": source,
        "backend": times.backend,
        "precision": times.precision,
        "simulated": False,
        "measured": False,
        "feasible": False,
        **{key: getattr(wish, key) for key in ("rate_hz", "target_accuracy", "margin", "batch", "encoding", "exits")},
    }
    try:
        accuracy, thresholds, reach = _operating_point(card, wish)
    except ModelError as error:
        return _refuse(f"nothing does it: {error}", document, json_path)
    demand = Demand(
        times.per_frame(segments, wish.batch),
        tuple(card.input_nbytes_of(segment, wish.encoding) for segment in segments),
        reach,
        wish.batch,
    )
    candidates = [Candidate(each.name, each.speed, each.cores, each.link_bps, _cost(each)) for each in given]
    answer = cheapest(candidates, demand, wish.rate_hz, margin=wish.margin, latency_s=wish.latency_s, spans=wish.spans)
    document |= {"accuracy": accuracy, "thresholds": thresholds, "reach": reach}
    chosen = answer.chosen
    if chosen is None:
        document["best"] = _described(answer.best, min(wish.rate_hz, answer.best.rate_hz))
        return _refuse(_why_nothing(answer, wish, accuracy), document, json_path)
    measured_on = f"{times.backend} {times.precision}, times of {profile.machine.get('processor')} ({_whose(source)})"
    _show(chosen, answer.fewer, wish, f"{card.name}, accuracy {accuracy:.4f}, {measured_on}")
    checked: list[Checked] = []
    if check:
        scenario = {
            "model": wish.model,
            "profile": source,
            "backend": times.backend,
            "precision": times.precision,
            "exits": wish.exits,
            "thresholds": thresholds,
        }
        sets = [chosen] if answer.fewer is None else [chosen, answer.fewer]
        queue_capacity = chosen.queue_capacity(wish.rate_hz)
        checked = [
            check_by_simulation(
                *(each, candidates, wish.rate_hz, wish.encoding, queue_capacity, scenario), latency_s=wish.latency_s
            )
            for each in sets
        ]
        _show_check(checked, wish)
    if json_path is not None:
        document |= {
            "feasible": True,
            "plan": _described(chosen, wish.rate_hz),
            "queue_capacity": chosen.queue_capacity(wish.rate_hz),
            "one_fewer": _described(answer.fewer, min(wish.rate_hz, answer.fewer.rate_hz)) if answer.fewer else None,
            "topology": topology_keys(chosen, wish.encoding, chosen.queue_capacity(wish.rate_hz)),
            "check": [{**each._asdict(), "simulated": True} for each in checked],
        }
        write_json(document, json_path)
    return int(bool(checked) and not checked[0].holds)


def _cost(each: Given) -> float:
    return 1.0 if each.cost is None else each.cost


def _profile_source(card: ModelCard, path: Path | None) -> str:
    """As a scenario names it."""
    if path is not None:
        return str(path) if str(path) in ("shipped", "measured") else str(path.absolute())
    return "measured" if profile_path(card.model_id).is_file() else "shipped"


def _whose(source: str) -> str:
    return {"measured": "this computer's profile", "shipped": "the profile shipped with the model"}.get(source, source)


def _operating_point(card: ModelCard, wish: Wish) -> tuple[float, list[float] | None, tuple[float, ...]]:
    """Accuracy, thresholds (None without exits) and the share of frames that comes to each segment.

    Raises:
        ModelError: the model is not that accurate.
    """
    if wish.exits:
        point = card.point_for(wish.target_accuracy)
        left = [1.0 - sum(point.exit_shares[:segment]) for segment in range(card.num_segments)]
        return point.accuracy, list(point.thresholds), tuple(share if share > 1e-9 else 0.0 for share in left)
    accuracy = card.accuracy_validation[-1]
    promised = promised_accuracy(accuracy, card.training.validation_images)
    if promised < wish.target_accuracy:
        raise ModelError(
            f"model {card.name!r} promises an accuracy of at most {promised:.4f} without early exits: "
            f"ask for no more than that, got {wish.target_accuracy}"
        )
    return accuracy, None, (1.0,) * card.num_segments


def _refuse(text: str, document: dict[str, Any], json_path: Path | None) -> int:
    click.echo(text)
    if json_path is not None:
        write_json({**document, "why": text}, json_path)
    return 1


def _why_nothing(answer: Answer, wish: Wish, accuracy: float) -> str:
    asked = f"nothing does {wish.rate_hz:g} frames/s at an accuracy of {accuracy:.4f}"
    if answer.quickest is not None:
        found = 1000.0 * answer.quickest.latency_s(wish.rate_hz)
        return (
            f"{asked} within {1000.0 * wish.latency_s:g} ms: the quickest, {_names(answer.quickest)}, "
            f"may take {found:.1f} ms on average"
        )
    best = answer.best
    return f"{asked}: the most is {best.rate_hz:.0f} frames/s, with {_names(best)} ({best.limit()})"


def _names(arrangement: Arrangement) -> str:
    return ", ".join(arrangement.names)


def _described(arrangement: Arrangement, rate_hz: float) -> dict[str, Any]:
    return {
        "computers": list(arrangement.names),
        "cost": arrangement.cost,
        "strategy": arrangement.strategy.value,
        "reachable_frames_per_s": arrangement.rate_hz,
        "limit": arrangement.limit(),
        "limited_by": sorted({use.kind for use in arrangement.limits}),
        "at_frames_per_s": rate_hz,
        "latency_s": arrangement.latency_s(rate_hz),
        "duties": [
            {
                "computer": duty.computer,
                "segments": list(duty.segments),
                "frames_per_s": rate_hz * duty.taken,
                "busy": duty.busy(rate_hz),
                "link_bps": _or_none(duty.carried_bps(rate_hz)),
                "link_busy": duty.busy(rate_hz, "link"),
            }
            for duty in arrangement.duties
        ],
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _show(chosen: Arrangement, fewer: Arrangement | None, wish: Wish, origin: str) -> None:
    rate_hz = wish.rate_hz
    table = Table(title=f"{rate_hz:g} frames/s with {_names(chosen)}, estimated")
    for heading in ("computer", "holds", "frames/s in", "busy", "link, Mbit/s", "link used"):
        table.add_column(heading, justify="left" if heading == "computer" else "right")
    for duty in chosen.duties:
        carried = duty.carried_bps(rate_hz)
        table.add_row(
            duty.computer,
            _span(duty.segments),
            f"{rate_hz * duty.taken:.0f}" if duty.segments else "",
            f"{100.0 * duty.busy(rate_hz):.0f} %",
            f"{carried / 1e6:.1f}" if math.isfinite(carried) else "",
            f"{100.0 * duty.busy(rate_hz, 'link'):.0f} %" if math.isfinite(carried) else "",
        )
    wide_console().print(table)
    click.echo(origin)
    click.echo(
        f"cheapest: {_names(chosen)}, cost {chosen.cost:g}, strategy {chosen.strategy.value}: up to "
        f"{chosen.rate_hz:.0f} frames/s ({chosen.limit()}), mean latency roughly "
        f"{1000.0 * chosen.latency_s(rate_hz):.0f} ms"
    )
    if fewer is not None:
        gone = ", ".join(name for name in chosen.names if name not in fewer.names)
        click.echo(f"without {gone}: at most {fewer.rate_hz:.0f} frames/s ({fewer.limit()})")
    click.echo("in a topology file:")
    keys = topology_keys(chosen, wish.encoding, chosen.queue_capacity(rate_hz))
    for key, value in keys.items():
        if isinstance(value, dict):
            click.echo(f"  {key}:")
            for name, content in value.items():
                click.echo(f"    {_flow(name)}: {_flow(content) if content else ''}".rstrip())
        else:
            click.echo(f"  {key}: {_flow(value)}")


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).removesuffix("...\n").strip()


def _span(segments: tuple[int, ...]) -> str:
    if not segments:
        return "the camera"
    return f"{segments[0]}" if len(segments) == 1 else f"{segments[0]} to {segments[-1]}"


def _show_check(checked: list[Checked], wish: Wish) -> None:
    table = Table(title=f"check: simulated at {wish.rate_hz:g} frames/s")
    for heading in (
        "computers", "estimated to reach", "simulated: answered/s", "simulated: refused", "simulated: latency",
    ):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "computers" else "right")
    for each in checked:
        table.add_row(
            ", ".join(each.computers),
            f"{each.estimated_fps:.0f}",
            f"{each.reached_fps:.0f}",
            f"{100.0 * each.refused_share:.1f} %",
            f"{each.latency_ms:.0f} ms" if each.latency_ms is not None else "",
        )
    wide_console().print(table)
    free = 100.0 * (1.0 - wish.margin)
    click.echo(f"the estimate leaves {free:.0f} % of every core and link free, the simulation uses all of them")
    if not checked[0].holds:
        click.echo(f"the simulation does not bear the plan out: {_short(checked[0], wish)}")


def _short(checked: Checked, wish: Wish) -> str:
    return f"it answers {checked.reached_fps:.0f} of {wish.rate_hz:g} frames/s; ask for more with a lower --margin"
