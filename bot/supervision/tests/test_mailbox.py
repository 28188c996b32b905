"""Lanes, their bounds, and that nothing is lost or reordered whoever reads."""

import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .. import Lane, LaneBounds, MailboxFull
from ..lanes import LaneTable
from ..mailbox import Fate, Mailbox
from ..seat import Order, Parcel, Seat
from ..settle import Gauge
from .support import LANES, Halt, Num, Price, small


def clock() -> int:
    return 7


def mailbox(bounds: LaneBounds | None = None, gauge: Gauge | None = None) -> Mailbox:
    return Mailbox(LaneTable(LANES), bounds or LaneBounds(), gauge)


def offer(box: Mailbox, *messages: object) -> list[bool | None]:
    return [box.offer(m, box.lanes[type(m)]) for m in messages]


def take(seat: Seat, count: int) -> list[object]:
    return [seat.get().message for _ in range(count)]


def test_control_goes_first_and_the_others_keep_one_order() -> None:
    box = mailbox()
    offer(box, Num(1), Price(2), Halt(3), Num(4), Halt(5), Price(6))
    assert take(box.sit(1, clock), 6) == [Halt(3), Halt(5), Num(1), Price(2), Num(4), Price(6)]


def test_control_overtakes_what_the_seat_has_already() -> None:
    box = mailbox()
    seat = box.sit(1, clock)
    offer(box, Num(1), Num(2))
    assert take(seat, 1) == [Num(1)]
    offer(box, Halt(3))
    assert take(seat, 2) == [Halt(3), Num(2)]


def test_each_lane_has_its_bound_and_control_none() -> None:
    box = mailbox(small(must=3, stream=2))
    assert offer(box, *[Price(n) for n in range(3)]) == [True, True, False]
    assert offer(box, *[Num(n) for n in range(4)]) == [True, True, True, None]
    assert all(offer(box, *[Halt(n) for n in range(1_000)]))
    assert box.waiting() == (1_000, 3, 2)
    assert box.refused == 1


def test_the_message_in_hand_makes_room() -> None:
    box = mailbox(small(must=1, stream=1))
    seat = box.sit(1, clock)
    offer(box, Num(1))
    assert offer(box, Num(2)) == [None]
    take(seat, 1)
    assert offer(box, Num(2), Price(1)) == [True, True]
    take(seat, 2)
    assert offer(box, Price(2)) == [True]


def test_a_full_must_lane_makes_the_sender_wait_then_fail() -> None:
    box = mailbox(small(must=1, put_timeout_ms=20))
    offer(box, Num(1))
    with pytest.raises(MailboxFull):
        box.put(Num(2), Lane.MUST)
    assert box.waiting() == (0, 1, 0)


def test_a_sender_that_waits_goes_on_when_the_reader_takes() -> None:
    box = mailbox(small(must=1, put_timeout_ms=10_000))
    seat = box.sit(1, clock)
    sent: list[bool] = []
    sender = threading.Thread(target=lambda: sent.extend(box.put(Num(n), Lane.MUST) for n in range(50)))
    sender.start()
    assert take(seat, 50) == [Num(n) for n in range(50)]
    sender.join(30)
    assert sent == [True] * 50


@pytest.mark.parametrize("shut", [Mailbox.park, Mailbox.close])
def test_a_sender_that_waits_is_let_go_when_the_name_shuts(shut: Callable[[Mailbox], object]) -> None:
    box = mailbox(small(must=1, put_timeout_ms=10_000))
    offer(box, Num(1))
    sent: list[bool] = []
    sender = threading.Thread(target=lambda: sent.append(box.put(Num(2), Lane.MUST)))
    sender.start()
    shut(box)
    sender.join(30)
    assert sent == [False]


def test_an_old_seat_takes_nothing_and_the_next_takes_all() -> None:
    box = mailbox()
    first = box.sit(1, clock)
    offer(box, Num(1), Num(2), Price(3))
    assert take(first, 1) == [Num(1)]
    left = box.vacate(first, Fate.BLAME, 9)
    assert left is not None
    assert left.message_type == "Num"
    assert box.vacate(first, Fate.BLAME, 9) is None
    offer(box, Num(4))
    assert take(first, 2) == [Order.LEAVE, Order.LEAVE]
    second = box.sit(2, clock)
    assert take(second, 4) == [Num(1), Num(2), Price(3), Num(4)]
    assert take(first, 1) == [Order.LEAVE]


def test_a_suspect_goes_before_control_and_is_given_up_at_last() -> None:
    box = mailbox()
    offer(box, Num(1), Num(2), Halt(3))
    seat = box.sit(1, clock)
    assert take(seat, 2) == [Halt(3), Num(1)]
    box.vacate(seat, Fate.BLAME, 2)
    offer(box, Halt(4))
    assert box.waiting() == (1, 2, 0)
    seat = box.sit(2, clock)
    assert take(seat, 1) == [Num(1)]
    assert box.waiting() == (1, 1, 0)
    left = box.vacate(seat, Fate.BLAME, 2)
    assert left is not None
    assert left.poison is not None
    assert (left.poison.message, left.poison.attempts) == (Num(1), 2)
    assert take(box.sit(3, clock), 2) == [Halt(4), Num(2)]


def test_giving_up_the_last_message_is_rest() -> None:
    gauge = Gauge()
    box = mailbox(gauge=gauge)
    offer(box, Num(1))
    for attempt in (1, 2):
        seat = box.sit(attempt, clock)
        assert take(seat, 1) == [Num(1)]
        assert not gauge.wait(0)
        box.vacate(seat, Fate.BLAME, 2)
    assert gauge.wait(0), "and no next epoch is needed for it"
    offer(box, Num(2))
    assert not gauge.wait(0)


def test_attempts_are_forgotten_once_a_message_was_handled() -> None:
    box = mailbox()
    same = Num(1)
    offer(box, same)
    seat = box.sit(1, clock)
    take(seat, 1)
    box.vacate(seat, Fate.BLAME, 2)
    seat = box.sit(2, clock)
    offer(box, same)
    assert take(seat, 2) == [same, same]
    left = box.vacate(seat, Fate.BLAME, 2)
    assert left is not None
    assert left.poison is None


def test_what_was_timed_or_ordered_ends_with_its_epoch() -> None:
    box = mailbox()
    seat = box.sit(1, clock)
    assert box.offer_to(seat, Halt(1))
    box.request_stop(seat, drain=True)
    offer(box, Num(2))
    box.vacate(seat, Fate.BLAME, 2)
    assert not box.offer_to(seat, Halt(1))
    assert box.waiting() == (0, 1, 0)
    assert take(box.sit(2, clock), 1) == [Num(2)]


def test_an_epoch_ends_while_its_reader_sleeps() -> None:
    box = mailbox()
    seat = box.sit(1, clock)
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.extend(take(seat, 1)))
    reader.start()
    box.vacate(seat, Fate.BLAME, 2)
    reader.join(30)
    assert got == [Order.LEAVE]


def test_one_epoch_at_a_time() -> None:
    box = mailbox()
    seat = box.sit(1, clock)
    with pytest.raises(RuntimeError, match="epoch 1 is not over"):
        box.sit(2, clock)
    box.vacate(seat, Fate.DONE, 2)
    box.close()
    with pytest.raises(RuntimeError, match="closed"):
        box.sit(2, clock)


def test_lanes_of_a_rule_and_of_a_mapping() -> None:
    by_rule = LaneTable(lambda kind: Lane.STREAM if kind is Price else Lane.MUST, (Halt,))
    assert [by_rule[t] for t in (Price, Num, Halt)] == [Lane.STREAM, Lane.MUST, Lane.CONTROL]
    by_name = LaneTable({Halt: Lane.STREAM}, (Halt,))
    assert [by_name[t] for t in (Num, Halt)] == [Lane.MUST, Lane.STREAM]


message = st.sampled_from([Num, Price, Halt])
step = st.one_of(
    message,
    st.sampled_from(["take", "take", "take", "die", "spare", "hang"]),
)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(step, max_size=60))
def test_nothing_is_lost_doubled_or_reordered_over_any_deaths(steps: list[object]) -> None:
    """Against a model: per order (control; the rest) each message is done once or is still there, in order."""
    gauge = Gauge()
    box = mailbox(gauge=gauge)
    seat, epoch, number = box.sit(1, clock), 1, 0
    sent: dict[bool, list[object]] = {True: [], False: []}
    done: list[object] = []
    poison: list[object] = []
    in_hand: object = None
    hung: list[Seat] = []
    for each in steps:
        if isinstance(each, type):
            number += 1
            offer(box, each(number))
            sent[each is Halt].append(each(number))
        elif each == "take":
            if sum(box.waiting()):  # else the reader would sleep here, with the last message done or not
                if in_hand is not None:
                    done.append(in_hand)
                in_hand = seat.get().message
        else:
            left = box.vacate(seat, Fate.KEEP if each == "spare" else Fate.BLAME, 2)
            assert left is not None
            if left.poison is not None:
                poison.append(left.poison.message)
            in_hand = None
            if each == "hang":
                hung.append(seat)
            epoch += 1
            seat = box.sit(epoch, clock)
        for old in hung:
            assert old.get().message is Order.LEAVE
        assert gauge.wait(0) == (in_hand is None and not sum(box.waiting()))
    if in_hand is not None:
        done.append(in_hand)
    while sum(box.waiting()):
        done.append(seat.get().message)
    for control, messages in sent.items():
        ours = [m for m in done if isinstance(m, Halt) is control]
        given_up = [m for m in poison if isinstance(m, Halt) is control]
        # Of all that was sent each is done or given up, once; what was done kept its order.
        assert sorted(ours + given_up, key=lambda m: m.n) == messages  # type: ignore[attr-defined]
        assert ours == [m for m in messages if m not in given_up]


@pytest.fixture
def _impatient_threads() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("_impatient_threads")
def test_many_writers_against_a_reader_that_dies_again_and_again() -> None:
    """Real threads: 4 writers, an epoch that is ended from outside at any moment. No loss, each writer's order."""
    box = mailbox(small(must=50, put_timeout_ms=60_000))
    enough = threading.Event()
    sent = [0] * 4

    def write(w: int) -> None:
        while not enough.is_set():
            assert box.put((w, sent[w]), Lane.MUST)
            sent[w] += 1

    done: list[tuple[int, int]] = []

    def read(seat: Seat) -> None:
        while (got := seat.get().message) is not Order.LEAVE:
            assert isinstance(got, tuple)
            done.append(got)

    writers = [threading.Thread(target=write, args=(w,)) for w in range(4)]
    for writer in writers:
        writer.start()
    for epoch in range(1, 201):
        seat = box.sit(epoch, clock)
        reader = threading.Thread(target=read, args=(seat,))
        before = len(done)
        reader.start()
        while len(done) < before + 20:
            reader.join(0.0002)
        box.vacate(seat, Fate.KEEP, 2)
        reader.join(30)
    enough.set()
    seat = box.sit(201, clock)
    while any(w.is_alive() for w in writers) or sum(box.waiting()):
        if sum(box.waiting()):
            read_one = seat.get().message
            assert isinstance(read_one, tuple)
            done.append(read_one)
    for w in range(4):
        mine = [n for writer, n in done if writer == w]
        # A message in hand when the epoch ends is tried again, so it may be there twice, in its place.
        assert list(dict.fromkeys(mine)) == list(range(sent[w]))
        assert sorted(mine) == mine
    assert len(done) - sum(sent) <= 200


def test_memory_stays_flat_however_long_the_reader_stalls() -> None:
    box = mailbox(small(must=10, stream=100, put_timeout_ms=0))
    taken = sum(offer(box, Price(n))[0] or 0 for n in range(200_000))
    assert taken == 100
    assert box.refused == 199_900
    assert len(box.close()) == 100
    assert all(isinstance(p, Parcel) for p in box.close())
