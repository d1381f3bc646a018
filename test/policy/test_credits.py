# SPDX-License-Identifier: Apache-2.0
"""Flow control without loss."""

from __future__ import annotations

import random

from literals import CAM, W1, W2, W3

from mdi_exit_ros.policy.credits import HOARDING_S, Arrival, CreditPool, Inbound, Outbound
from mdi_exit_ros.task import PeerId

PATIENCE_S = 1.0


def opened_pool(size: int, *senders: PeerId) -> CreditPool:
    pool = CreditPool(size)
    for sender in senders:
        pool.open(sender, 0, 0.0)
    pool.grant(0.0)
    return pool


# ---- the sender's end --------------------------------------------------------------------------------------


def test_nothing_may_be_sent_before_credit_is_given() -> None:
    assert Outbound(W2).available == 0


def test_what_is_sent_uses_up_credit_until_the_receiver_gives_more() -> None:
    outbound = Outbound(W2)
    outbound.acknowledge(0, 3)
    outbound.sent += 3
    assert (outbound.available, outbound.unacknowledged) == (0, 3)
    outbound.acknowledge(2, 3)
    assert (outbound.available, outbound.unacknowledged) == (2, 1)


def test_what_is_heard_late_takes_nothing_back() -> None:
    outbound = Outbound(W2)
    outbound.acknowledge(4, 8)
    outbound.acknowledge(2, 3)
    assert (outbound.acked, outbound.available) == (4, 8)


def test_voided_stream_may_not_be_sent_on() -> None:
    outbound = Outbound(W2)
    outbound.acknowledge(0, 8)
    outbound.void()
    assert outbound.available == 0


def test_stream_that_only_the_receiver_remembers_goes_on_where_it_was() -> None:
    outbound, inbound = Outbound(W2), Inbound(W1, 0.0, received=40, limit=48)
    outbound.acknowledge(inbound.received, inbound.outstanding)
    assert outbound.available == 8
    outbound.sent += 1
    assert inbound.arrive(outbound.sent, 1) is Arrival.NEXT


# ---- the receiver's end --------------------------------------------------------------------------------------


def test_batch_in_order_is_next() -> None:
    inbound = Inbound(W2, 0.0)
    assert inbound.arrive(3, 3) is Arrival.NEXT
    assert inbound.arrive(5, 2) is Arrival.NEXT
    assert (inbound.received, inbound.lost) == (5, 0)


def test_batch_that_came_before_is_a_duplicate_and_counts_nothing() -> None:
    inbound = Inbound(W2, 0.0)
    inbound.arrive(5, 5)
    assert inbound.arrive(5, 5) is Arrival.DUPLICATE
    assert inbound.arrive(3, 3) is Arrival.DUPLICATE
    assert (inbound.received, inbound.lost) == (5, 0)


def test_gap_in_front_of_a_batch_is_counted_as_lost() -> None:
    inbound = Inbound(W2, 0.0, limit=8)
    inbound.arrive(2, 2)
    assert inbound.arrive(7, 2) is Arrival.NEXT
    assert (inbound.received, inbound.lost) == (7, 3)


def test_frames_that_nobody_had_credit_for_are_not_lost() -> None:
    inbound = Inbound(W2, 0.0, limit=8)
    inbound.arrive(1 << 48, 2)
    assert (inbound.received, inbound.lost) == (1 << 48, 8)
    inbound.announced(1 << 49, 0.0, PATIENCE_S)
    inbound.announced(1 << 49, PATIENCE_S, PATIENCE_S)
    assert (inbound.received, inbound.lost) == (1 << 49, 8)


def test_announced_frames_that_have_come_are_not_lost() -> None:
    inbound = Inbound(W2, 0.0)
    inbound.announced(4, 0.0, PATIENCE_S)
    inbound.arrive(4, 4)
    inbound.announced(4, 5.0, PATIENCE_S)
    assert (inbound.received, inbound.lost) == (4, 0)


def test_announced_frames_are_lost_when_patience_ends_and_not_before() -> None:
    inbound = Inbound(W2, 0.0, limit=8)
    inbound.announced(4, 10.0, PATIENCE_S)
    inbound.announced(4, 10.999, PATIENCE_S)
    assert (inbound.received, inbound.lost) == (0, 0)
    inbound.announced(4, 11.0, PATIENCE_S)
    assert (inbound.received, inbound.lost, inbound.outstanding) == (4, 4, 4)


def test_stream_that_is_always_a_batch_behind_loses_nothing() -> None:
    inbound = Inbound(W2, 0.0)
    for step in range(1, 500):
        now = step * 0.01
        inbound.announced(step * 4, now, PATIENCE_S)  # the status overtakes its batch
        assert inbound.arrive((step - 1) * 4, 4) is Arrival.NEXT or step == 1
    assert inbound.lost == 0


def test_only_what_is_overdue_is_lost_of_a_stream_that_goes_on() -> None:
    inbound = Inbound(W2, 0.0, limit=9)
    inbound.announced(4, 0.0, PATIENCE_S)
    inbound.announced(9, 1.0, PATIENCE_S)
    assert (inbound.received, inbound.lost) == (4, 4)
    inbound.arrive(9, 5)
    inbound.announced(9, 3.0, PATIENCE_S)
    assert (inbound.received, inbound.lost) == (9, 4)


def test_batch_that_was_given_up_is_late_once_and_the_next_one_is_next() -> None:
    inbound = Inbound(W2, 0.0, limit=8)
    inbound.announced(4, 0.0, PATIENCE_S)
    inbound.announced(4, 1.0, PATIENCE_S)
    assert inbound.lost == 4
    assert inbound.arrive(6, 2) is Arrival.NEXT
    assert inbound.arrive(3, 1) is Arrival.LATE
    assert inbound.lost == 3
    assert inbound.arrive(3, 1) is Arrival.DUPLICATE
    assert inbound.arrive(6, 2) is Arrival.DUPLICATE
    assert [inbound.arrive(2, 2), inbound.arrive(4, 1)] == [Arrival.LATE, Arrival.LATE]
    assert (inbound.lost, inbound.received) == (0, 6)
    assert inbound.arrive(4, 4) is Arrival.DUPLICATE


def test_given_up_batches_that_are_remembered_are_bounded() -> None:
    inbound = Inbound(W2, 0.0, limit=1000)
    for end in range(2, 200, 2):
        inbound.arrive(end, 1)
    assert inbound.arrive(1, 1) is Arrival.DUPLICATE, "given up too long ago"
    assert inbound.arrive(197, 1) is Arrival.LATE


# ---- room ------------------------------------------------------------------------------------------------------


def test_room_is_shared_equally() -> None:
    pool = opened_pool(12, W2, W3, CAM)
    assert [pool.streams[name].outstanding for name in ("w2", "w3", "cam")] == [4, 4, 4]


def test_only_sender_gets_all_room() -> None:
    assert opened_pool(12, W2).streams["w2"].outstanding == 12


def test_arrived_frames_occupy_room_until_they_have_left() -> None:
    pool = opened_pool(4, W2)
    stream = pool.streams["w2"]
    stream.arrive(4, 4)
    stream.held = 4
    pool.grant(0.0)
    assert stream.outstanding == 0
    stream.held = 3
    pool.grant(0.0)
    assert stream.outstanding == 1
    assert stream.limit == 5


def test_every_stream_gets_a_frame_however_full_the_pool_is() -> None:
    pool = opened_pool(4, W2)
    pool.streams["w2"].arrive(4, 4)
    pool.streams["w2"].held = 4
    pool.open(W3, 0, 0.0)
    pool.grant(0.0)
    assert pool.streams["w3"].outstanding == 1


def test_reserved_share_is_given_however_full_the_pool_is() -> None:
    pool = opened_pool(4, W2)
    pool.streams["w2"].arrive(4, 4)
    pool.streams["w2"].held = 4
    pool.open(W3, 0, 0.0).reserved = 3
    pool.grant(0.0)
    assert pool.streams["w3"].outstanding == 3
    pool.grant(0.0)
    assert pool.streams["w3"].outstanding == 3


def test_granted_credit_is_not_taken_back_when_another_sender_comes() -> None:
    pool = opened_pool(12, W2)
    pool.open(W3, 0, 0.0)
    pool.grant(0.0)
    assert pool.streams["w2"].limit == 12
    assert pool.streams["w3"].outstanding == 1


def test_new_incarnation_voids_the_old_credit() -> None:
    pool = opened_pool(12, W2)
    pool.streams["w2"].arrive(5, 5)
    pool.streams["w2"].held = 5
    reborn = PeerId("w2", 22)
    fresh = pool.open(reborn, 0, 1.0)
    assert (fresh.sender, fresh.outstanding) == (reborn, 0)
    pool.grant(0.0)
    assert fresh.outstanding == 7  # the five of the old life still take up room


def test_room_of_a_closed_stream_returns_when_its_frames_have_left() -> None:
    pool = opened_pool(12, W2, W3)
    old = pool.streams["w2"]
    old.arrive(6, 6)
    old.held = 6
    pool.close("w2")
    pool.grant(0.0)
    assert pool.streams["w3"].outstanding == 6
    old.held = 0
    pool.grant(0.0)
    assert pool.streams["w3"].outstanding == 12


def test_opening_again_in_the_same_life_changes_nothing() -> None:
    pool = opened_pool(12, W2)
    stream = pool.streams["w2"]
    assert pool.open(W2, 0, 3.0) is stream
    assert stream.heard_at == 3.0
    assert stream.limit == 12


def test_stream_opens_at_the_senders_count() -> None:
    pool = CreditPool(4)
    stream = pool.open(W2, 100, 0.0)
    assert stream.outstanding == 0
    pool.grant(0.0)
    assert stream.arrive(101, 1) is Arrival.NEXT
    assert stream.lost == 0


def test_closing_an_unknown_stream_changes_nothing() -> None:
    pool = CreditPool(4)
    pool.close("w9")
    pool.grant(0.0)
    assert pool.streams == {}


def test_neither_room_nor_credit_is_ever_exceeded() -> None:
    """Two ends at random: held and promised frames stay within the pool, sent ones within credit."""
    rng = random.Random(3)
    senders = (W2, W3, CAM)
    pool = opened_pool(16, *senders)
    outbound = {sender.name: Outbound(W1) for sender in senders}
    for _ in range(5000):
        name = rng.choice(senders).name
        stream, sender = pool.streams[name], outbound[name]
        match rng.randrange(4):
            case 0 if sender.available:
                count = rng.randint(1, sender.available)
                sender.sent += count
                if rng.random() < 0.9:
                    assert stream.arrive(sender.sent, count) is Arrival.NEXT
                    stream.held += count
            case 1 if stream.held:
                stream.held -= 1
            case 2:
                pool.grant(0.0)
            case _:
                sender.acknowledge(stream.received, stream.outstanding)
        assert sender.sent <= stream.limit
        assert sum(each.held + each.outstanding for each in pool.streams.values()) <= 16 + len(senders)


def test_closed_streams_leave_nothing_behind() -> None:
    pool = CreditPool(16)
    for life in range(1000):
        stream = pool.open(PeerId("w2", life), 0, float(life))
        stream.held = 1
        pool.grant(0.0)
        stream.held = 0
    pool.grant(0.0)
    assert len(pool.streams) == 1
    assert pool._closed == []


def test_a_stream_that_hoards_credit_beyond_its_share_is_closed_and_opens_again_with_its_share() -> None:
    pool = CreditPool(64)
    pool.open(PeerId("early", 1), 0, 0.0)
    pool.grant(0.0)
    late = pool.open(PeerId("late", 1), 0, 0.1)
    pool.grant(0.1)
    assert (pool.streams["early"].outstanding, late.outstanding) == (64, 1)
    pool.grant(HOARDING_S, expected=2)
    assert "early" not in pool.streams
    early = pool.open(PeerId("early", 1), 0, HOARDING_S + 0.1)
    pool.grant(HOARDING_S + 0.1, expected=2)
    assert (early.outstanding, late.outstanding) == (32, 32)


def test_a_share_is_kept_for_streams_that_are_expected() -> None:
    pool = CreditPool(64)
    first = pool.open(PeerId("first", 1), 0, 0.0)
    pool.grant(0.0, expected=2)
    assert first.outstanding == 32


def test_stream_whose_frames_are_still_here_does_not_hoard() -> None:
    pool = CreditPool(64)
    early = pool.open(PeerId("early", 1), 0, 0.0)
    pool.grant(0.0)
    early.arrive(1, 1)
    early.held = 1
    pool.open(PeerId("late", 1), 0, 0.1)
    pool.grant(HOARDING_S + 1.0)
    assert pool.streams["early"] is early


def test_room_is_given_once_when_a_closed_stream_still_takes_some() -> None:
    pool = opened_pool(12, PeerId("old", 1))
    pool.streams["old"].arrive(6, 6)
    pool.streams["old"].held = 6
    pool.close("old")
    pool.open(W2, 0, 0.0)
    pool.open(W3, 0, 0.0)
    pool.grant(0.0)
    assert [pool.streams[name].outstanding for name in ("w2", "w3")] == [6, 1]  # all room, and the reserved frame
