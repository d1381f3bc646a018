# SPDX-License-Identifier: Apache-2.0
"""Measured service times and transfer delays."""

from __future__ import annotations

import pytest

from mdi_exit_ros.policy.estimation import ROUND_TRIP_MAX_S, STALE_S, ServiceTimes, TransferDelay, smooth


def test_first_value_is_taken_as_it_is() -> None:
    assert smooth(-1.0, 4.0, 0.25) == 4.0


def test_new_value_counts_by_its_weight() -> None:
    assert smooth(4.0, 8.0, 0.25) == 5.0
    assert smooth(4.0, 8.0, 0.0) == 4.0
    assert smooth(4.0, 8.0, 1.0) == 8.0


def test_zero_is_a_measured_value() -> None:
    assert smooth(0.0, 8.0, 0.5) == 4.0


def test_service_time_is_per_task_of_the_batch() -> None:
    times = ServiceTimes()
    times.observe(2, 4, 0.8, 0.5)
    assert times.mean_s == pytest.approx(0.2)
    assert times.segment_s(2) == pytest.approx(0.2)
    assert times.batch_s(2, 4) == pytest.approx(0.2)


def test_unknown_service_times_are_zero() -> None:
    times = ServiceTimes()
    assert (times.mean_s, times.segment_s(1), times.batch_s(1, 1)) == (0.0, 0.0, 0.0)


def test_segments_and_batch_sizes_are_kept_apart_and_the_mean_is_over_all() -> None:
    times = ServiceTimes()
    times.observe(1, 1, 0.4, 0.5)
    times.observe(2, 1, 0.8, 0.5)
    times.observe(1, 8, 0.8, 0.5)
    assert times.mean_s == pytest.approx(0.35)
    assert times.segment_s(1) == pytest.approx(0.25)
    assert times.segment_s(2) == pytest.approx(0.8)
    assert times.batch_s(1, 1) == pytest.approx(0.4)
    assert times.batch_s(1, 15) == pytest.approx(0.1)  # 8..15 are one size
    assert times.batch_s(1, 16) == 0.0


def test_segment_that_was_not_held_for_a_while_is_unknown_again() -> None:
    service = ServiceTimes()
    service.observe(1, 4, 0.4, 0.2)
    service.observe(2, 4, 0.8, 0.2)
    service.forget(1)
    assert (service.segment_s(1), service.batch_s(1, 4)) == (0.0, 0.0)
    assert (service.segment_s(2), service.batch_s(2, 4)) == (pytest.approx(0.2), pytest.approx(0.2))


def test_times_measured_before_this_life_are_a_start() -> None:
    times = ServiceTimes()
    times.expect(1, 1, 0.3)
    times.expect(1, 8, 0.8)
    times.expect(2, 8, 1.6)
    assert times.segment_s(1) == pytest.approx(0.1)
    assert times.batch_s(1, 1) == pytest.approx(0.3)
    assert times.mean_s == pytest.approx(0.15)
    times.observe(1, 8, 1.6, 0.5)
    assert times.segment_s(1) == pytest.approx(0.15)


def test_delay_is_zero_and_unknown_before_an_echo() -> None:
    delay = TransferDelay()
    delay.batch_sent(1.0, 1000)
    assert not delay.known
    assert delay.seconds(10**9) == 0.0


def test_latency_is_half_the_round_trip() -> None:
    delay = TransferDelay()
    delay.status_echoed(0.5, 0.2)
    assert delay.known
    assert delay.seconds(0) == delay.seconds(10**6) == 0.25


def test_bandwidth_comes_from_what_a_batch_took_beyond_the_latency() -> None:
    delay = TransferDelay()
    delay.status_echoed(0.5, 0.2)
    delay.batch_sent(10.0, 1000)
    delay.batch_echoed(10.0, 2.5, 0.2)
    assert delay.seconds(500) == pytest.approx(0.25 + 1.0)


def test_moving_time_is_the_delay_without_the_latency_and_unknown_before_a_batch() -> None:
    delay = TransferDelay()
    delay.status_echoed(0.5, 0.2)
    assert delay.moving_s(500) == -1.0
    delay.batch_sent(10.0, 1000)
    delay.batch_echoed(10.0, 2.5, 0.2)
    assert delay.moving_s(500) == pytest.approx(1.0)


def test_bandwidth_is_measured_anew_after_a_silence() -> None:
    delay = TransferDelay()
    delay.status_echoed(1.0, 0.2)
    for stamp, round_trip_s in ((10.0, 5.0), (10.0 + STALE_S, 1.5), (10.2 + 2 * STALE_S, 1.5)):
        delay.batch_sent(stamp, 1000)
        delay.batch_echoed(stamp, round_trip_s, 0.2)
        if stamp <= 10.0 + STALE_S:
            assert delay.moving_s(1000) > 3.0
    assert delay.moving_s(1000) == pytest.approx(0.5)


def test_batches_of_one_stamp_are_measured_together() -> None:
    delay = TransferDelay()
    delay.status_echoed(0.0, 0.2)
    for nbytes in (2000, 60000):
        delay.batch_sent(10.0, nbytes)
    delay.batch_echoed(10.0, 0.062, 0.2)
    delay.batch_echoed(10.0, 0.08, 0.2)  # the same stamp in the next status
    assert delay.moving_s(1000) == pytest.approx(0.001)


def test_echo_is_counted_once() -> None:
    delay = TransferDelay()
    delay.status_echoed(0.5, 0.2)
    delay.batch_sent(10.0, 1000)
    delay.batch_echoed(10.0, 2.5, 0.5)
    delay.batch_echoed(10.0, 100.0, 0.5)
    assert delay.seconds(1000) == pytest.approx(2.25)


def test_echo_of_a_later_batch_drops_the_earlier_ones() -> None:
    delay = TransferDelay()
    delay.status_echoed(0.5, 0.2)
    for stamp in (10.0, 11.0, 12.0):
        delay.batch_sent(stamp, 1000)
    delay.batch_echoed(11.0, 1.5, 0.2)
    delay.batch_echoed(10.0, 99.0, 1.0)
    assert delay.seconds(1000) == pytest.approx(1.25)
    delay.batch_echoed(12.0, 2.5, 1.0)
    assert delay.seconds(1000) == pytest.approx(2.25)


def test_echo_of_a_stamp_never_sent_is_ignored() -> None:
    delay = TransferDelay()
    delay.status_echoed(0.5, 0.2)
    delay.batch_echoed(3.0, 99.0, 1.0)
    assert delay.seconds(1000) == 0.25


def test_negative_round_trip_counts_as_zero() -> None:
    delay = TransferDelay()
    delay.status_echoed(-3.0, 0.2)
    delay.batch_sent(1.0, 1000)
    delay.batch_echoed(1.0, -3.0, 0.2)
    assert delay.seconds(1000) == 0.0


def test_batches_that_are_never_echoed_take_constant_memory() -> None:
    delay = TransferDelay()
    for index in range(10_000):
        delay.batch_sent(float(index), 1000)
    assert len(delay._sent) <= 256


def test_one_batch_to_a_peer_that_stood_still_hardly_changes_the_delay() -> None:
    delay = TransferDelay()
    for step in range(20):
        delay.status_echoed(0.002, 0.2)
        delay.batch_sent(float(step), 24_000)
        delay.batch_echoed(float(step), 0.004, 0.2)
    before = delay.seconds(24_000)
    delay.batch_sent(20.0, 24_000)
    delay.batch_echoed(20.0, 4.5, 0.2)
    assert delay.seconds(24_000) < 4.0 * before


def test_link_that_has_become_slow_is_found_out_within_a_few_batches() -> None:
    delay = TransferDelay()
    delay.status_echoed(0.002, 0.2)
    for step in range(30):
        delay.batch_sent(float(step), 24_000)
        delay.batch_echoed(float(step), 0.004 if step < 10 else 1.0, 0.2)
    assert delay.seconds(24_000) > 0.8


def test_delay_recovers_from_an_echo_that_is_none() -> None:
    delay = TransferDelay()
    delay.status_echoed(3.4e38, 0.2)
    delay.batch_sent(0.0, 1)
    delay.batch_echoed(0.0, 3.4e38, 0.2)
    assert delay.seconds(1) <= ROUND_TRIP_MAX_S
    for step in range(1, 60):
        delay.status_echoed(0.002, 0.2)
        delay.batch_sent(float(step), 1)
        delay.batch_echoed(float(step), 0.004, 0.2)
    assert delay.seconds(1) < 0.01
