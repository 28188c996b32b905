"""The budget of a host: whatever the interleaving, no limit is passed by ourselves, and exits come before entries."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.adapters.binance.budget import DEFAULT_LIMITS, Budget, Budgets, Priority, RateLimit, limits_of
from bot.adapters.binance.errors import CallFailed, Hold, Reaction
from bot.adapters.binance.profiles import PROFILES
from bot.supervision.testing import ManualClock

NOON = 1_795_557_600_000  # begins a window of each length but the day
MINUTE = RateLimit("REQUEST_WEIGHT", "MINUTE", 1, 1000)
TEN_SECONDS = RateLimit("ORDERS", "SECOND", 10, 20)
BY_URGENCY = sorted(Priority, reverse=True)


def allowed(budget, now, weight, priority, is_order=False):
    try:
        return budget.admit(now, weight, priority, is_order)
    except CallFailed as failed:
        return None if failed.reaction is Reaction.WAIT else failed


def fill(budget, now, priority, weight=10):
    """Ask until it is refused; return the weight that went."""
    went = 0
    while allowed(budget, now, weight, priority):
        went += weight
    return went


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def budget(clock):
    return Budget(clock, [MINUTE, TEN_SECONDS])


class TestPriorities:
    def test_each_is_refused_before_what_is_more_urgent(self, budget):
        went = [fill(budget, NOON, priority) for priority in reversed(BY_URGENCY)]
        assert went == [600, 200, 100, 50]
        assert BY_URGENCY == [Priority.EXIT, Priority.QUESTION, Priority.ENTRY, Priority.REST]

    def test_orders_are_counted_for_themselves(self, budget):
        for _ in range(16):
            budget.admit(NOON, 1, Priority.ENTRY, is_order=True)
        assert allowed(budget, NOON, 1, Priority.ENTRY, is_order=True) is None
        assert allowed(budget, NOON, 1, Priority.EXIT, is_order=True)
        assert allowed(budget, NOON, 1, Priority.ENTRY)

    def test_who_is_refused_is_told_when(self, budget):
        fill(budget, NOON + 4_500, Priority.REST)
        with pytest.raises(CallFailed, match=r"600 of 1000 request weight in 1 minute are used.*55\.5 s to the"):
            budget.admit(NOON + 4_500, 10, Priority.REST)

    def test_a_new_window_begins_at_the_whole_minute_of_the_exchange(self, budget):
        fill(budget, NOON + 59_999, Priority.REST)
        assert allowed(budget, NOON + 59_999, 10, Priority.REST) is None
        assert fill(budget, NOON + 60_000, Priority.REST) < 600, "what is under way may be counted later"

    def test_answered_requests_do_not_weigh_on_the_next_window(self, budget):
        for _ in range(60):
            budget.settle(budget.admit(NOON, 10, Priority.REST), None)
        assert fill(budget, NOON + 60_000, Priority.REST) == 600

    def test_a_clock_set_back_frees_nothing_and_ends_at_the_next_edge(self, budget):
        for _ in range(60):
            budget.settle(budget.admit(NOON + 3_600_000, 10, Priority.REST), None)
        assert allowed(budget, NOON, 10, Priority.REST) is None
        assert allowed(budget, NOON + 60_000, 10, Priority.REST)


class TestHeaders:
    def test_what_others_used_counts(self, budget):
        budget.settle(budget.admit(NOON, 10, Priority.REST), {"x-mbx-used-weight-1m": "595"})
        assert allowed(budget, NOON, 10, Priority.REST) is None
        assert allowed(budget, NOON, 10, Priority.ENTRY)

    def test_what_the_exchange_gave_back_is_free_again(self, budget):
        """A filled order does not count as an unfilled one."""
        for _ in range(200):
            budget.settle(budget.admit(NOON, 1, Priority.ENTRY, is_order=True), {"x-mbx-order-count-10s": "0"})

    def test_an_old_reply_does_not_hide_later_requests(self, budget):
        first = budget.admit(NOON, 10, Priority.REST)
        for _ in range(59):
            budget.settle(budget.admit(NOON, 10, Priority.REST), None)
        budget.settle(first, {"x-mbx-used-weight-1m": "10"})
        assert allowed(budget, NOON, 10, Priority.REST) is None

    def test_a_late_reply_counts_nothing_twice(self, budget):
        """It had waited: the exchange counted it after all the others."""
        late = budget.admit(NOON, 10, Priority.REST)
        for number in range(40):
            budget.settle(budget.admit(NOON, 10, Priority.REST), {"x-mbx-used-weight-1m": str(10 * number + 10)})
        budget.settle(late, {"x-mbx-used-weight-1m": "410"})
        assert fill(budget, NOON, Priority.REST) == 190

    @pytest.mark.parametrize("told", ["", "many", "-5", "1e3", "٣"])
    def test_a_count_that_is_none_changes_nothing(self, budget, told):
        budget.settle(budget.admit(NOON, 600, Priority.REST), {"x-mbx-used-weight-1m": told})
        assert allowed(budget, NOON, 10, Priority.REST) is None

    def test_a_reply_of_the_last_window_says_nothing_of_this_one(self, budget):
        ticket = budget.admit(NOON, 10, Priority.REST)
        budget.settle(budget.admit(NOON + 60_000, 10, Priority.REST), None)
        budget.settle(ticket, {"x-mbx-used-weight-1m": "999"})
        assert allowed(budget, NOON + 60_000, 10, Priority.REST)


class TestHolds:
    @pytest.mark.parametrize(
        ("hold", "stopped"),
        [
            (Hold.ALL, ["exit", "question", "entry", "rest"]),
            (Hold.ORDERS, ["exit", "entry"]),
            (Hold.ENTRIES, ["entry", "rest"]),
        ],
    )
    def test_what_a_hold_stops_and_until_when(self, budget, clock, hold, stopped):
        kinds = {
            "exit": (Priority.EXIT, True),
            "question": (Priority.QUESTION, False),
            "entry": (Priority.ENTRY, True),
            "rest": (Priority.REST, False),
        }
        budget.hold(hold, 7_000, "HTTP 429")
        budget.hold(hold, 2_000, "HTTP 429")
        clock.advance(6_999)
        assert [name for name, (p, is_order) in kinds.items() if not allowed(budget, NOON, 1, p, is_order)] == stopped
        if hold is Hold.ALL:
            with pytest.raises(CallFailed, match=r"pausing 0\.0 s more after HTTP 429"):
                budget.admit(NOON, 1, Priority.EXIT)
        clock.advance(1)
        assert all(allowed(budget, NOON, 1, p, is_order) for p, is_order in kinds.values())


class TestLimits:
    def info(self, *rows):
        names = ("rateLimitType", "interval", "intervalNum", "limit")
        return {"rateLimits": [dict(zip(names, row, strict=True)) for row in rows]}

    def test_read_from_exchange_info(self, budget):
        budget.learn(limits_of(self.info(("REQUEST_WEIGHT", "MINUTE", 1, 100), ("ORDERS", "SECOND", 10, 5))))
        assert fill(budget, NOON, Priority.REST) == 60
        assert [bool(allowed(budget, NOON, 1, Priority.ENTRY, is_order=True)) for _ in range(5)].count(True) == 4

    def test_learning_again_forgets_no_count(self, budget):
        fill(budget, NOON, Priority.REST)
        budget.learn([MINUTE])
        assert allowed(budget, NOON, 10, Priority.REST) is None

    @pytest.mark.parametrize(
        "info",
        [
            {},
            {"rateLimits": None},
            {"rateLimits": [3, {}]},
            {"rateLimits": [{"rateLimitType": "ORDERS", "interval": "YEAR", "intervalNum": 1, "limit": 1}]},
            {"rateLimits": [{"rateLimitType": "CONNECTIONS", "interval": "MINUTE", "intervalNum": 5, "limit": 300}]},
            {"rateLimits": [{"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 0, "limit": 1}]},
            {"rateLimits": [{"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": "1"}]},
            {"rateLimits": [{"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": -1}]},
        ],
    )
    def test_what_cannot_be_read_is_left_out(self, info):
        assert limits_of(info) == []

    def test_raw_requests_count_whatever_they_weigh(self, clock):
        budget = Budget(clock, [RateLimit("RAW_REQUESTS", "MINUTE", 5, 10)])
        assert [bool(allowed(budget, NOON, 50, Priority.REST)) for _ in range(7)].count(True) == 6

    @pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
    def test_what_calls_weigh(self, profile):
        assert profile.weight("GET", "myTrades", ["symbol", "orderId"]) == 5
        assert profile.weight("GET", "myTrades", ["symbol", "fromId"]) == 20
        assert profile.weight("GET", "openOrders", ["symbol"]) == 6
        assert profile.weight("GET", "openOrders", []) == 80
        assert profile.weight("POST", "order", ["symbol"]) == 1
        assert profile.weight("GET", "something/new", []) == 1

    def test_one_budget_a_host(self, clock):
        budgets = Budgets(clock)
        assert budgets.of("https://api.binance.us/") is budgets.of("https://API.binance.us")
        assert budgets.of("https://api.binance.us") is not budgets.of("https://api.binance.com")
        assert {limit.kind for limit in DEFAULT_LIMITS} == {"REQUEST_WEIGHT", "ORDERS", "RAW_REQUESTS"}


@dataclass
class Sent:
    ticket: object
    weight: int
    is_order: bool
    told: dict | None = None


class Counting:
    """The exchange's own count: true windows, and a reply's headers as of the moment when a request arrives."""

    def __init__(self, limits):
        self.used = {limit: {} for limit in limits}

    def arrive(self, sent, now, fills):
        for limit, windows in self.used.items():
            length = limit.number * {"SECOND": 1000, "MINUTE": 60_000}[limit.interval]
            number = now // length
            amount = {"REQUEST_WEIGHT": sent.weight, "ORDERS": sent.is_order, "RAW_REQUESTS": 1}[limit.kind]
            windows[number] = windows.get(number, 0) + amount
            assert windows[number] <= limit.limit, limit
            if limit.kind == "ORDERS" and sent.is_order and fills:
                windows[number] -= 1
        weights, orders = (
            self.used[limit].get(now // length, 0) for limit, length in ((MINUTE, 60_000), (TEN_SECONDS, 10_000))
        )
        sent.told = {"x-mbx-used-weight-1m": str(weights)}
        if sent.is_order:
            sent.told["x-mbx-order-count-10s"] = str(orders)


@settings(max_examples=150, deadline=None)
@given(st.integers(), st.sampled_from([1, 40, 400]), st.sampled_from([0.2, 0.5, 0.9]))
def test_whatever_the_order_of_things_no_limit_is_passed_and_exits_come_first(seed, pause_ms, backlog):
    """Requests arrive and are answered in any order, late or without a count; orders fill or do not."""
    rng = random.Random(seed)
    limits = (MINUTE, TEN_SECONDS, RateLimit("RAW_REQUESTS", "MINUTE", 5, 300))
    budget, exchange = Budget(ManualClock(), limits), Counting(limits)
    now, on_the_way, waiting = NOON, [], []

    def ask(priority):
        is_order = priority in (Priority.EXIT, Priority.ENTRY)
        weight = 1 if is_order else rng.choice((1, 5, 20))
        ticket = allowed(budget, now, weight, priority, is_order)
        if ticket is not None:
            on_the_way.append(Sent(ticket, weight, is_order))
        return ticket is not None

    for _ in range(400):
        now += rng.randrange(2 * pause_ms)
        priority = rng.choice(BY_URGENCY + [Priority.QUESTION] * 4)
        if ask(priority) and priority is Priority.ENTRY:
            assert ask(Priority.EXIT), "an exit was refused where an entry had just gone"
        while on_the_way and rng.random() > backlog:
            sent = on_the_way.pop(rng.randrange(len(on_the_way)))
            exchange.arrive(sent, now, fills=rng.random() < 0.8)
            waiting.append(sent)
        while waiting and rng.random() > backlog:
            sent = waiting.pop(rng.randrange(len(waiting)))
            budget.settle(sent.ticket, sent.told if rng.random() < 0.9 else None)


def test_the_weight_used_is_that_of_the_window_one_asks_for(clock):
    budget = Budget(clock, (MINUTE,))
    assert budget.used_weight(NOON) == 0
    answered, under_way = (budget.admit(NOON + 1, weight, Priority.REST) for weight in (100, 30))
    assert budget.used_weight(NOON + 2) == 130
    budget.settle(answered, {"x-mbx-used-weight-1m": "400"})
    assert budget.used_weight(NOON + 59_999) == 430
    assert budget.used_weight(NOON + 60_000) == 30  # it may be counted after the edge
    budget.settle(under_way, None)
    assert budget.used_weight(NOON + 60_000) == 0


class Kept:
    def __init__(self):
        self.pauses = {}
        self.pause = self.pauses.get

    def keep_pause(self, host, since_ms, until_ms, reason):
        self.pauses[host] = (since_ms, until_ms, reason)


def test_a_ban_is_heeded_to_its_end_by_the_next_process(clock):
    kept, url = Kept(), "https://api.binance.com"
    Budgets(clock, kept).of(url).hold(Hold.ALL, 120_000, "HTTP 418")
    clock.advance(50_000)
    after = Budgets(clock, kept)
    with pytest.raises(CallFailed, match=r"pausing 70\.0 s more after HTTP 418"):
        after.of(url).admit(NOON, 1, Priority.EXIT)
    after.of("https://api.binance.us").admit(NOON, 1, Priority.REST)
    clock.advance(70_000)
    after.of(url).admit(NOON, 1, Priority.REST)
    Budgets(clock, kept).of(url).admit(NOON, 1, Priority.REST)


def test_what_stops_orders_alone_is_not_kept_and_no_pause_is_longer_than_the_longest_ban(clock):
    kept, url = Kept(), "https://api.binance.com"
    Budgets(clock, kept).of(url).hold(Hold.ENTRIES, 60_000, "HTTP 503")
    assert kept.pauses == {}
    kept.keep_pause("api.binance.com", clock.now_ms(), clock.now_ms() + 10**12, "what no exchange says")
    budget = Budgets(clock, kept).of(url)
    clock.advance(3 * 86_400_000)
    budget.admit(NOON, 1, Priority.REST)


@pytest.mark.parametrize("off_ms", [-10 * 365 * 86_400_000, -3_600_000, 3_600_000])
def test_a_clock_that_is_wrong_makes_no_pause_longer_than_it_was_told(clock, off_ms):
    kept, url = Kept(), "https://api.binance.com"
    began_ms = clock.now_ms() - off_ms
    kept.keep_pause("api.binance.com", began_ms, began_ms + 60_000, "HTTP 429")
    budget = Budgets(clock, kept).of(url)
    clock.advance(60_000)
    budget.admit(NOON, 1, Priority.REST)
