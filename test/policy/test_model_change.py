# SPDX-License-Identifier: Apache-2.0
"""A change of model while the cluster runs: loaded beside, announced, and no frame is lost to it."""

from __future__ import annotations

import dataclasses

import pytest
from cluster_harness import FIVE_MESH, MODEL, NUM_SEGMENTS, OTHER_MODEL, TOPOLOGIES, Cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from literals import (
    CAM,
    W1,
    W2,
    of,
    policy,
    ready_source,
    ready_worker,
    report_of,
    source_report,
    stream,
    worker,
    worker_report,
)

from mdi_exit_ros.policy.actions import ChangeModel, LoadModel, PublishPolicy, SendTasks, ShowModel, Warn
from mdi_exit_ros.policy.admission import AdaptationSettings
from mdi_exit_ros.policy.controller import ControllerCore, ControllerSetup
from mdi_exit_ros.policy.events import (
    AnswersReceived,
    AppliedPolicy,
    FramesOffered,
    ModelFacts,
    ModelLoaded,
    ModelWanted,
    SetPoints,
    Tick,
    WorkerReport,
)
from mdi_exit_ros.policy.model_change import CHANGE_PATIENCE_S, PREPARE_TIMEOUT_S, RELOAD_S
from mdi_exit_ros.policy.source_setup import SourceSettings
from mdi_exit_ros.task import Answer, Mode, PeerId, Reason, Status, Strategy

PATIENT = SourceSettings(drop=False, waiting_max=8, deadline_s=4.0, attempt_timeout_s=0.5)
NEW = ModelFacts("models/b", "b", (0.1, 0.2, 0.3, 0.4))


def wants(model_id: str, *, final: bool, version: int = 1) -> AppliedPolicy:
    return policy(version=version)._replace(model=f"models/{model_id}", model_id=model_id, model_final=final)


# ---- all together ------------------------------------------------------------------------------------------


def test_frames_before_and_after_are_answered_by_the_old_and_the_new_model_without_a_retry() -> None:
    cluster = Cluster(TOPOLOGIES["mesh"], frames=600, offer_interval_s=0.002)
    cluster.start_controller()
    cluster.at(0.4, lambda: cluster.want_model(OTHER_MODEL))
    summary = cluster.run().check()
    assert (summary["ok"], summary["retries"], summary["failed"]) == (600, 0, {})
    assert cluster.models == {MODEL, OTHER_MODEL}
    assert {core.setup.model_id for core in cluster.workers.values()} == {OTHER_MODEL}
    assert cluster.source.setup.model_id == OTHER_MODEL


def test_worker_that_is_started_with_the_old_model_changes_too() -> None:
    cluster = Cluster(TOPOLOGIES["mesh"], frames=900)
    cluster.start_controller()
    cluster.at(0.3, lambda: cluster.want_model(OTHER_MODEL))
    cluster.at(1.0, lambda: cluster.start_worker("w2"))
    cluster.run().check()
    assert cluster.workers["w2"].setup.model_id == OTHER_MODEL


def test_change_there_and_back_again() -> None:
    cluster = Cluster(TOPOLOGIES["two"], frames=1500)
    cluster.start_controller()
    cluster.at(0.3, lambda: cluster.want_model(OTHER_MODEL))
    cluster.at(1.5, lambda: cluster.want_model(MODEL))
    summary = cluster.run().check()
    assert (summary["ok"], summary["retries"]) == (1500, 0)
    assert cluster.models == {MODEL, OTHER_MODEL}
    assert cluster.source.setup.model_id == MODEL


def test_change_that_is_called_off_in_time_changes_nothing() -> None:
    cluster = Cluster(TOPOLOGIES["two"], frames=500)
    cluster.start_controller()
    cluster.at(0.3, lambda: cluster.want_model(OTHER_MODEL))
    cluster.at(0.32, lambda: cluster.want_model(MODEL))
    summary = cluster.run().check()
    assert (summary["ok"], cluster.models) == (500, {MODEL})


@settings(max_examples=60)
@given(
    topology=st.sampled_from(sorted(TOPOLOGIES)),
    strategy=st.sampled_from(list(Strategy)),
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.0, 0.02]),
    drop=st.booleans(),
    changes=st.lists(st.tuples(st.floats(0.02, 1.0), st.sampled_from([MODEL, OTHER_MODEL])), min_size=1, max_size=4),
    deaths=st.lists(st.tuples(st.floats(0.02, 1.0), st.sampled_from(sorted(FIVE_MESH)), st.booleans()), max_size=4),
)
def test_every_frame_ends_exactly_once_whatever_dies_while_models_change(
    topology: str,
    strategy: Strategy,
    seed: int,
    loss: float,
    drop: bool,
    changes: list[tuple[float, str]],
    deaths: list[tuple[float, str, bool]],
) -> None:
    cluster = Cluster(
        TOPOLOGIES[topology],
        strategy=strategy,
        frames=300,
        loss=loss,
        seed=seed,
        source_settings=dataclasses.replace(PATIENT, drop=drop, worker_timeout_s=2.0),
    )
    cluster.start_controller()
    for time, model in changes:
        cluster.at(time, lambda model=model: cluster.want_model(model))
    for time, name, comes_back in deaths:
        if name in cluster.topology:
            cluster.at(time, lambda name=name: cluster.kill_worker(name))
            if comes_back:
                cluster.at(time + 0.3, lambda name=name: cluster.start_worker(name))
    cluster.run(until=120.0).check()


# ---- the worker --------------------------------------------------------------------------------------------


def test_worker_loads_the_model_once_and_says_when_it_has() -> None:
    core = worker(segments=(1, 2))
    assert of(LoadModel, core.handle(wants("b", final=False), 0.0)) == [LoadModel("models/b", "b", (1, 2))]
    assert of(LoadModel, core.handle(wants("b", final=False), 0.1)) == []
    assert report_of(core.handle(Tick(), 0.2)).prepared_model_id == ""
    assert report_of(core.handle(ModelLoaded("b"), 0.3)).prepared_model_id == "b"
    assert of(ChangeModel, core.handle(Tick(), 0.4)) == []


def test_worker_that_failed_to_load_tries_again_after_a_while_or_when_it_is_wished_anew() -> None:
    core = worker()
    core.handle(wants("b", final=False), 0.0)
    now = 0.0
    for wait_s in (RELOAD_S, 2.0 * RELOAD_S, 4.0 * RELOAD_S):
        now += 1.0
        assert report_of(core.handle(ModelLoaded("b", loaded=False), now)).prepared_model_id == ""
        assert of(LoadModel, core.handle(wants("b", final=False), now + wait_s - 0.1)) == []
        now += wait_s
        assert len(of(LoadModel, core.handle(wants("b", final=False), now))) == 1
        now += 10.0 * RELOAD_S
        assert of(LoadModel, core.handle(wants("b", final=False), now)) == [], "it is at it"
    core.handle(ModelLoaded("b", loaded=False), now)
    core.handle(policy(version=2), now)
    assert len(of(LoadModel, core.handle(wants("b", final=False, version=3), now))) == 1
    core.handle(ModelLoaded("b"), now)
    core.handle(ModelLoaded("b", loaded=False), now)  # what was begun before the wish was taken back
    assert of(LoadModel, core.handle(wants("b", final=False, version=3), now + 10.0 * RELOAD_S)) == []


def test_worker_changes_when_no_source_needs_the_old_model_any_more() -> None:
    core = worker()
    core.handle(source_report(CAM), 0.0)
    core.handle(wants("b", final=False), 0.0)
    core.handle(ModelLoaded("b"), 0.1)
    assert of(ChangeModel, core.handle(wants("b", final=True, version=2), 0.2)) == []
    drained = source_report(CAM)._replace(model_id="b")
    assert of(ChangeModel, core.handle(drained, 0.3)) == [ChangeModel("models/b", "b")]
    assert core.next_deadline() is None


def test_worker_does_not_wait_for_a_source_that_is_dead() -> None:
    core = worker(liveness_timeout_s=1.5)
    core.handle(source_report(CAM), 0.0)
    core.handle(wants("b", final=True), 0.0)
    core.handle(ModelLoaded("b"), 0.1)
    assert of(ChangeModel, core.handle(Tick(), 1.5)) == []
    assert len(of(ChangeModel, core.handle(Tick(), 1.6))) == 1


def test_thresholds_of_the_new_model_are_not_applied_to_the_old_one() -> None:
    core = worker()
    core.handle(policy(thresholds=(0.9,) * 4), 0.0)
    core.handle(policy(thresholds=(0.1,) * 4, version=2)._replace(thresholds_model_id="b"), 0.1)
    assert core._thresholds == (0.9,) * 4
    core.handle(policy(thresholds=(0.2,) * 4, version=3)._replace(thresholds_model_id=core.setup.model_id), 0.2)
    assert core._thresholds == (0.2,) * 4


def test_own_model_is_never_prepared() -> None:
    core = worker()
    core.handle(wants("b", final=False), 0.0)
    core.handle(wants(core.setup.model_id, final=False, version=2), 0.1)
    core.handle(ModelLoaded("b"), 0.2)
    assert report_of(core.handle(ModelLoaded(core.setup.model_id), 0.3)).prepared_model_id == ""


def test_source_that_stays_with_the_old_model_holds_up_a_worker_for_a_while_and_is_named() -> None:
    core = ready_worker()
    core.handle(wants("b", final=True), 0.1)
    core.handle(ModelLoaded("b"), 0.2)
    late = 0.2 + CHANGE_PATIENCE_S
    for now in (10.0, late - 0.1):
        core.handle(source_report(CAM), now)
        assert of(ChangeModel, core.handle(Tick(), now)) == []
    warning, change = core.handle(Tick(), late + 0.2)[-2:]
    assert "frames of cam, still of model model-a, are refused" in warning.text
    assert change == ChangeModel("models/b", "b")


# ---- the controller ----------------------------------------------------------------------------------------


def controller() -> ControllerCore:
    setup = ControllerSetup(PeerId("ctl", 9), NUM_SEGMENTS, model="a", model_id="a")
    return ControllerCore(setup, AdaptationSettings(), SetPoints(Mode.MANUAL, (0.8,) * 4, 0.0, 0.0))


def runs(peer: PeerId, model_id: str, prepared: str = "") -> WorkerReport:
    return worker_report(peer, model_id=model_id)._replace(prepared_model_id=prepared)


def named(actions: list[object]) -> list[tuple[str, bool, tuple[float, ...]]]:
    return [(p.policy.model_id, p.policy.model_final, p.policy.exit_thresholds) for p in of(PublishPolicy, actions)]


def test_controller_names_no_model_until_a_user_asks_for_one() -> None:
    assert named(controller().handle(Tick(), 0.0)) == [("", True, (0.8,) * 4)]


def test_controller_waits_for_every_worker_and_then_applies_the_new_thresholds() -> None:
    core = controller()
    for peer in (W1, W2):
        core.handle(runs(peer, "a"), 0.0)
    assert named(core.handle(ModelWanted(NEW), 0.2)) == [("b", False, (0.8,) * 4)]
    core.handle(runs(W1, "a", "b"), 0.3)
    assert named(core.handle(Tick(), 0.4)) == []
    actions = core.handle(runs(W2, "a", "b"), 0.5)
    assert of(ShowModel, actions) == [ShowModel("models/b", NEW.exit_thresholds)]
    assert named(actions) == [("b", True, NEW.exit_thresholds)]


def test_controller_gives_up_after_a_while_and_names_who_did_not_load_it() -> None:
    core = controller()
    core.handle(runs(W1, "a"), 0.0)
    core.handle(ModelWanted(NEW), 0.0)
    late = PREPARE_TIMEOUT_S + 0.5
    core.handle(runs(W1, "a"), PREPARE_TIMEOUT_S - 0.5)
    actions = core.handle(Tick(), late)
    (warning,) = of(Warn, actions)
    assert "w1 did not load models/b" in warning.text
    assert of(ShowModel, actions) == [ShowModel("a", (0.8,) * 4)]
    assert named(actions) == [("", True, (0.8,) * 4)]


def test_wish_waits_until_a_change_of_allocation_is_made() -> None:
    core = controller()
    core.handle(runs(W1, "a"), 0.0)
    core._allocator.final = False
    assert core.handle(ModelWanted(NEW), 0.05) and core.applied.model_id == ""
    core._allocator.final = True
    actions = [*core.handle(Tick(), 0.2), *core.handle(Tick(), 0.4)]
    assert named(actions)[-1] == ("b", False, (0.8,) * 4)


def test_second_wish_counts_while_workers_are_still_on_their_way_to_the_first() -> None:
    core = controller()
    core.handle(runs(W1, "a"), 0.0)
    core.handle(ModelWanted(NEW), 0.1)
    core.handle(runs(W1, "a", "b"), 0.3)
    core.handle(Tick(), 0.4)
    other = NEW._replace(model="models/c", model_id="c")
    assert named(core.handle(ModelWanted(other), 0.5)) == [("c", False, NEW.exit_thresholds)]
    actions = [*core.handle(runs(W1, "a", "c"), 0.6), *core.handle(Tick(), 0.75)]
    assert named(actions) == [("c", True, NEW.exit_thresholds)]


def test_old_model_wanted_back_while_workers_still_run_it_is_there_at_once() -> None:
    core = controller()
    core.handle(runs(W1, "a"), 0.0)
    core.handle(ModelWanted(NEW), 0.1)
    core.handle(runs(W1, "a", "b"), 0.3)
    core.handle(Tick(), 0.4)
    actions = [*core.handle(ModelWanted(ModelFacts("a", "a", (0.8,) * 4)), 0.5), *core.handle(Tick(), 0.65)]
    assert named(actions)[-1] == ("a", True, (0.8,) * 4)


def test_thresholds_name_the_model_that_they_are_for() -> None:
    core = controller()
    core.handle(runs(W1, "a"), 0.0)
    core.handle(ModelWanted(NEW), 0.1)
    assert core.applied.thresholds_model_id == "a"
    core.handle(runs(W1, "a", "b"), 0.3)
    core.handle(Tick(), 0.4)
    assert core.applied.thresholds_model_id == "b"


def test_controller_that_comes_back_with_another_model_than_the_workers_says_so_and_tells_on_demand() -> None:
    core = controller()
    warning, *_ = of(Warn, [*core.handle(runs(W1, "b"), 0.0), *core.handle(Tick(), 0.2)])
    assert "set its parameter `model`" in warning.text
    assert named(core.handle(ModelWanted(ModelFacts("a", "a", (0.8,) * 4)), 0.4)) == [("a", True, (0.8,) * 4)]


# ---- the source --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("final", [False, True])
def test_source_admits_nothing_new_until_its_frames_of_the_old_model_have_ended(final: bool) -> None:
    core = ready_source()
    (first,) = of(SendTasks, core.handle(FramesOffered(0, (None,)), 0.1))
    core.handle(wants("b", final=final), 0.2)
    assert bool(of(SendTasks, core.handle(FramesOffered(1, (None,)), 0.3))) is not final
    (only,) = first.tasks
    answer = Answer(only.frame, only.attempt, Status.OK, Reason.NONE, 1, 6, 0.9)
    ended = core.handle(AnswersReceived(W1, CAM, (answer,)), 0.4)
    assert of(ChangeModel, ended) == ([ChangeModel("models/b", "b")] if final else [])
    assert (core.setup.model_id, core.summary()["ok"]) == ("b" if final else "model-a", 1)


def test_source_sends_to_workers_of_the_new_model_alone_after_its_change() -> None:
    core = ready_source()
    core.handle(wants("b", final=True), 0.1)
    assert of(SendTasks, core.handle(FramesOffered(0, (None,)), 0.2)) == []
    again = PeerId("w1", 5)
    (opening,) = of(SendTasks, core.handle(worker_report(again, model_id="b"), 0.4))
    assert opening.tasks == ()
    sent = of(SendTasks, core.handle(worker_report(again, stream(CAM), model_id="b"), 0.5))
    assert [(each.receiver, len(each.tasks)) for each in sent] == [(again, 1)]
