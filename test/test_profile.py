# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mdi_exit_ros.cli.profile import profile
from mdi_exit_ros.errors import BackendError, ConfigurationError
from mdi_exit_ros.machine import machine
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.profile import (
    BackendProfile,
    Profile,
    ServiceTime,
    load_profile,
    profile_path,
    save_profile,
    times_here,
)


def backend(name: str, *times: tuple[int, int, float]) -> BackendProfile:
    measured = tuple(ServiceTime(segment=k, batch=b, seconds=s, low=s, high=s) for k, b, s in times)
    return BackendProfile(backend=name, precision="fp32", device="cpu", threads=1, version="1", times=measured)


def document(*backends: BackendProfile) -> Profile:
    return Profile(
        model="m", model_id="0", machine={"cores": 2}, measured_on="2026-11-25", method="by hand", backends=backends
    )


def test_time_is_interpolated_between_batch_sizes_and_proportional_beyond() -> None:
    entry = backend("a", (1, 8, 0.8), (1, 2, 0.2), (2, 2, 1.0))
    assert entry.seconds(1, 2) == 0.2
    assert entry.seconds(1, 5) == pytest.approx(0.5)
    assert entry.seconds(1, 1) == 0.2
    assert entry.seconds(1, 16) == pytest.approx(1.6)
    assert entry.per_frame([1, 2], 2) == (0.1, 0.5)
    assert entry.batches == (2, 8)
    with pytest.raises(ConfigurationError, match="has no segment 3"):
        entry.seconds(3, 1)


def test_fastest_backend_is_that_of_the_whole_network() -> None:
    measured = document(backend("a", (1, 8, 0.1), (2, 8, 0.9)), backend("b", (1, 8, 0.4), (2, 8, 0.4)))
    assert measured.fastest().backend == "b"
    assert measured.of("a").backend == "a"
    with pytest.raises(ConfigurationError, match="has no c fp32 on cpu: it has a fp32 on cpu, b fp32 on cpu"):
        measured.of("c")
    with pytest.raises(ConfigurationError, match="no backend in bf16"):
        measured.fastest("bf16")


def test_profile_survives_its_file_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    measured = document(backend("a", (1, 1, 0.1)))
    save_profile(measured, path)
    assert load_profile(path) == measured
    path.write_text(path.read_text().replace('"batch": 1', '"batch": 0'))
    with pytest.raises(ConfigurationError, match=r"is not a profile: backends\.0\.times\.0\.batch: .* greater than"):
        load_profile(path)
    with pytest.raises(ConfigurationError, match="make one with mdi-exit profile"):
        load_profile(tmp_path / "nothing.json")


def test_verb_measures_every_segment_and_keeps_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = ["--backend", "torch", "--backend", "torch-eager", "--batch", "1,4", "--turns", "1", "--images", "20"]
    result = CliRunner().invoke(profile, [*arguments, "--json", str(tmp_path / "p.json")], catch_exceptions=False)
    assert result.exit_code == 0
    assert "100.00 %" in result.output
    card = load_card("mobilenetv2")
    measured = load_profile(profile_path(card.model_id))
    assert measured == load_profile(tmp_path / "p.json")
    assert [entry.backend for entry in measured.backends] == ["torch", "torch-eager"]
    for entry in measured.backends:
        assert {(time.segment, time.batch) for time in entry.times} == {(k, b) for k in range(1, 6) for b in (1, 4)}
        assert all(time.low <= time.seconds <= time.high for time in entry.times)


def test_a_worker_gets_the_times_of_its_own_computer_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert times_here("0", "a", "fp32", "cpu") is None
    entry = backend("a", (1, 1, 0.1))
    here = document(entry).model_copy(update={"machine": machine()})
    save_profile(here, profile_path("0"))
    assert times_here("0", "a", "fp32", "cpu") == entry
    with pytest.raises(ConfigurationError, match="has no b fp32 on cpu"):
        times_here("0", "b", "fp32", "cpu")
    save_profile(here.model_copy(update={"machine": {"processor": "another"}}), profile_path("0"))
    assert times_here("0", "a", "fp32", "cpu") is None


def test_wrong_arguments_are_named() -> None:
    refused = CliRunner().invoke(profile, ["--batch", "0,4"])
    assert refused.exit_code == 2
    assert "expected whole numbers of at least 1 like 1,8,32, got '0,4'" in refused.output
    with pytest.raises(BackendError, match="unknown backend 'tpu'"):
        CliRunner().invoke(profile, ["--backend", "tpu"], catch_exceptions=False)
