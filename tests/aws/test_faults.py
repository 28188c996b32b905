"""What the writer makes of a DynamoDB that fails: each kline and trade is there once, and every failure is one line."""

import random
import threading
from decimal import Decimal

import pytest

from bot.adapters.sqlite import SqliteStore
from bot.domain.kline import kline_key
from bot.ports import ItemsRefused, StoreBusy, StoreError
from tests.aws.fault_proxy import cut_after, cut_before, expired, fault_proxy, refused, silence, throttled, unprocessed
from tests.aws.servers import aws_client
from tests.aws.tables import ClockAt, made, open_history
from tests.contract.test_store import a_trade
from tests.support.builders import NOON, a_kline, klines_of

pytestmark = pytest.mark.usefixtures("aws_credentials")


class Impatience(ClockAt):
    """Time passes with each look at it, so that how often a call is repeated does not depend on the machine."""

    looks = 0

    def monotonic_ms(self):
        self.looks += 1
        return 25 * self.looks


@pytest.fixture
def proxy(dynalite):
    with fault_proxy(dynalite.url) as proxy:
        yield proxy


@pytest.fixture
def history(proxy, table_prefix):
    with made(open_history(proxy.url, table_prefix)) as history:
        yield history


@pytest.fixture
def impatient(proxy, table_prefix, history):
    """Gives up soon, on the same tables."""
    with open_history(proxy.url, table_prefix, Impatience(), patience_ms=300) as impatient:
        yield impatient


def stored(history, dynalite):
    """All items there really are, as another program reads them."""
    client = aws_client("dynamodb", dynalite.url)
    klines, trades = (client.scan(TableName=name, ConsistentRead=True)["Items"] for name in history.tables.names)
    keys = sorted(item["kline_key"]["S"] for item in klines)
    return keys, sorted(i["client_order_id"]["S"] for i in trades if not i["symbol"]["S"].startswith("#"))


KLINES = klines_of(*range(1, 61))
KEYS = sorted(kline_key(kline) for kline in KLINES)


@pytest.mark.parametrize(
    ("fault", "operation"),
    [
        (throttled(), None),
        (throttled("ThrottlingException"), None),
        (refused("InternalServerError", 500), None),
        (refused("ServiceUnavailable", 503), None),
        (cut_before(), None),
        (cut_after(), None),
        (unprocessed(7), "BatchWriteItem"),
        (unprocessed(25), "BatchWriteItem"),
    ],
)
def test_half_of_the_calls_fail_and_all_is_stored_once(history, proxy, dynalite, fault, operation):
    proxy.fail(fault, operation, every=2)
    history.write(KLINES, [a_trade(f"bh-{n}") for n in range(4)])
    proxy.heal()
    assert proxy.faults >= 1
    assert stored(history, dynalite) == (KEYS, [f"bh-{n}" for n in range(4)])
    assert list(history.klines()) == KLINES


def test_whatever_fails_and_is_given_again_it_is_what_sqlite_has(history, proxy, tmp_path):
    """Writes that overlap, in any order, each with another failure: by effect each is done once."""
    chance = random.Random(8)
    faults = [throttled(), refused("InternalServerError", 500), cut_before(), cut_after(), unprocessed(3)]
    updates = [a_kline(n + 1, event_time=NOON + n * 2_000, is_closed=False) for n in range(30)]
    trades = [a_trade(f"bh-{n % 3}", quantity=Decimal(n)) for n in range(1, 13)]
    with SqliteStore(tmp_path / "history.db") as near:
        for _ in range(12):
            klines, some = chance.sample(KLINES + updates, 40), chance.choices(trades, k=3)
            fault = chance.choice(faults)
            proxy.fail(fault, "BatchWriteItem", times=1)
            if fault is not faults[-1]:
                proxy.fail(fault, "PutItem", every=2)
            history.write(klines, some)
            proxy.heal()
            near.write(klines, some)
        assert list(history.klines()) == list(near.klines())
        assert list(history.trades()) == list(near.trades())


def test_silence_ends_by_time_out_and_passes(history, proxy, dynalite):
    proxy.fail(silence(), "BatchWriteItem", times=1)
    history.write(KLINES[:3], [])
    assert stored(history, dynalite)[0] == KEYS[:3]


def test_a_trade_whose_answer_got_lost_is_the_bots_own(history, proxy):
    proxy.fail(cut_after(), "PutItem", times=1)
    history.write([], [a_trade()])
    assert proxy.calls.count("PutItem") == 2, "the second one found the first"
    assert proxy.calls.count("GetItem") >= 1, "and what was there was looked at"
    assert list(history.trades()) == [a_trade()]


def test_a_trade_grows_and_never_shrinks_whatever_gets_lost(history, proxy):
    part, whole = a_trade(quantity=Decimal(1)), a_trade(quantity=Decimal(2))
    for trade, kept in ((part, part), (whole, whole), (part, whole)):
        proxy.fail(cut_after(), "PutItem", times=1)
        history.write([], [trade])
        assert list(history.trades()) == [kept]


def test_quantities_beyond_38_digits_are_compared_too(history):
    """They are kept as text, which DynamoDB compares with no number."""
    quantities = [Decimal("1." + "1" * 45), Decimal(2), Decimal("2." + "1" * 45), Decimal(3)]
    for quantity in quantities:
        history.write([], [a_trade(quantity=quantity)])
        assert history.traded("BTCUSDT") == {"bh-1": quantity}
    for quantity in quantities:
        history.write([], [a_trade(quantity=quantity)])
    assert history.traded("BTCUSDT") == {"bh-1": Decimal(3)}


def test_four_batches_are_on_the_way_at_once_so_distance_costs_little(history, proxy, dynalite):
    together = threading.Barrier(4)

    def meet(proxy, request, forward):
        together.wait(20)
        return forward(request)

    proxy.fail(meet, "BatchWriteItem", times=4)
    many = klines_of(*range(1, 101))
    history.write(many, [])
    assert stored(history, dynalite)[0] == sorted(kline_key(kline) for kline in many)


def test_pauses_grow_only_while_most_is_refused(history, proxy, monkeypatch):
    pauses = []
    monkeypatch.setattr(history._connection, "pause", lambda seconds, deadline_ms: pauses.append(seconds))
    proxy.fail(throttled(), "BatchWriteItem", every=2)
    history.write(klines_of(*range(1, 401)), [])
    assert 0 < max(pauses) <= 0.05
    pauses.clear()
    proxy.heal()
    proxy.fail(throttled(), "BatchWriteItem", times=6)
    history.write(klines_of(*range(1, 26)), [])
    assert len(pauses) == 6
    assert pauses[-1] > 0.5


def test_what_one_of_them_is_refused_for_is_told_once_all_have_ended(history, proxy, dynalite):
    proxy.fail(refused("AccessDeniedException"), "BatchWriteItem", times=1)
    with pytest.raises(StoreError, match="allow dynamodb:BatchWriteItem on it"):
        history.write(KLINES, [])
    assert len(stored(history, dynalite)[0]) in (35, 50), "the other two were carried out"
    history.write(KLINES, [])
    assert stored(history, dynalite)[0] == KEYS


def test_who_gives_up_says_so_and_goes_on_where_it_was_whatever_else_is_written(impatient, proxy, dynalite):
    proxy.fail(unprocessed(20), "BatchWriteItem")
    with pytest.raises(StoreBusy, match=r"takes less a second than it is given \(UnprocessedItems"):
        impatient.write(KLINES, [a_trade()])
    through = len(stored(impatient, dynalite)[0])
    assert 0 < through < 60
    proxy.heal()
    impatient.write([], [a_trade("bh-2")])
    before = len(proxy.calls)
    impatient.write(KLINES, [a_trade()])
    assert stored(impatient, dynalite) == (KEYS, ["bh-1", "bh-2"])
    assert "PutItem" not in proxy.calls[before:], "the trade was through"
    assert proxy.calls[before:].count("BatchWriteItem") == -(-(60 - through) // 25), "so were these klines"


@pytest.mark.parametrize("fault", [throttled(), refused("InternalServerError", 500), cut_before()])
def test_what_passes_by_itself_is_busy(impatient, proxy, fault):
    proxy.fail(fault)
    for call in (
        lambda: impatient.write(KLINES, []),
        lambda: impatient.write([], [a_trade()]),
        lambda: list(impatient.klines("BTCUSDT")),
        lambda: impatient.last_klines("BTCUSDT", 1),
        lambda: list(impatient.trades("BTCUSDT")),
        lambda: impatient.traded("BTCUSDT"),
        lambda: impatient.trade("BTCUSDT", "bh-1"),
        impatient.symbols,
    ):
        with pytest.raises(StoreBusy) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (expired(), "the AWS credentials have expired"),
        (refused("UnrecognizedClientException"), "does not accept these AWS credentials"),
        (refused("AccessDeniedException"), "allow dynamodb:BatchWriteItem on it"),
        (refused("403", 403), "allow dynamodb:BatchWriteItem on it"),
        (refused("ResourceNotFoundException"), "make it with check --create"),
        (
            refused("InvalidSignatureException", message="Signature expired: 2026 is now earlier than 2027"),
            r"this machine's clock is wrong by \d+ s, (ahead|behind): synchronise it",
        ),
        (refused("ValidationException", message="no such key"), "ValidationException: no such key"),
    ],
)
def test_what_needs_a_person_is_told_at_once_and_then_goes_on(history, proxy, fault, line):
    history.write(KLINES[:1], [])
    proxy.fail(fault, "BatchWriteItem", times=1)
    with pytest.raises(StoreError, match=line) as caught:
        history.write(KLINES, [])
    assert not isinstance(caught.value, StoreBusy)
    assert "\n" not in str(caught.value)
    history.write(KLINES, [])
    assert list(history.klines()) == KLINES


def test_credentials_that_were_renewed_are_found_without_a_new_start(history, proxy, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    proxy.fail(expired(), times=1)
    with pytest.raises(StoreError, match="have expired"):
        history.write(KLINES, [])
    with pytest.raises(StoreError, match="AWS credentials are needed, none found"):
        history.write(KLINES, [])
    (tmp_path / "aws-credentials").write_text("[default]\naws_access_key_id = new\naws_secret_access_key = s\n")
    history.write(KLINES, [])
    assert history.credentials() == "shared-credentials-file"


def test_what_can_never_be_kept_is_named_and_does_not_stop_the_rest(history, dynalite):
    ancient, huge = a_kline(open_time=999, close_time=1_000), a_trade("bh-2", reason="x" * 500_000)
    with pytest.raises(ItemsRefused, match="DynamoDB cannot keep an item of BTCUSDT of 500") as caught:
        history.write([ancient, *KLINES], [huge, a_trade()])
    assert set(caught.value.items) == {ancient, huge}
    assert stored(history, dynalite) == (KEYS, ["bh-1"])


def test_the_largest_item_fits(history):
    trade = a_trade(reason="x" * (400 * 1024 - 350))
    history.write([], [trade])
    assert list(history.trades()) == [trade]
