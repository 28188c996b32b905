"""Messages as the contract has them; every version ever written can be read, and a newer one is refused by name."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.adapters.kafka.codec import FORMS, Codec, CodecError, Form, Message
from bot.domain.kline import Kline
from bot.messages import ENTRY_TYPES, TOPICS, Decision, LogEntry
from bot.ports import Record
from tests.kafka.entries import ENTRIES, a_kline, a_trade

GOLDEN = Path(__file__).parent / "golden"
CODEC = Codec("paper")


def record_of(message: Message) -> Record:
    return Record(message.topic, 0, 7, 0, message.key, message.value, tuple(message.headers))  # type: ignore[arg-type]


def there_and_back(entry: LogEntry) -> LogEntry:
    message = CODEC.encode(entry)
    assert message is not None
    return CODEC.decode(record_of(message))


def golden_text(message: Message) -> str:
    headers = {name: (value or b"").decode() for name, value in message.headers}  # type: ignore[union-attr]
    whole = {
        "topic": message.topic,
        "key": message.key.decode(),
        "headers": headers,
        "value": json.loads(message.value),
    }
    return json.dumps(whole, indent=1) + "\n"


def test_a_kline_is_the_contracts() -> None:
    message = CODEC.encode(a_kline())
    assert message is not None
    assert (message.topic, message.key) == ("KafkaStreams", b"BTCUSDT")
    assert message.headers[:3] == [("type", b"Kline"), ("schema", b"1"), ("mode", b"paper")]
    value = json.loads(message.value)
    keys = "ticker symbol interval open_time close_time event_time open high low close volume quote_volume is_closed"
    assert " ".join(value) == keys
    assert value["ticker"] == value["symbol"] == "BTCUSDT"
    assert (value["close"], value["is_closed"], value["open_time"]) == ("49710.04000000", True, 1_621_036_800_000)


def test_topics_and_keys_of_the_others() -> None:
    trade, event = CODEC.encode(a_trade()), CODEC.encode(ENTRIES["ActorFailed"])
    assert trade is not None
    assert event is not None
    assert json.loads(trade.value)["commissions"] == {"BTC": "0.00001", "BNB": "0.00000001"}
    assert (trade.topic, trade.key) == ("trades", b"BTCUSDT")
    assert (event.topic, event.key) == ("actor-events", b"trader/BTCUSDT")
    prefixed = Codec("live", "mine.").encode(a_trade())
    assert prefixed is not None
    assert prefixed.topic == "mine.trades"
    assert dict(prefixed.headers)["mode"] == b"live"


def test_every_type_that_has_a_topic_has_a_form_and_no_other() -> None:
    assert {form.kind for form in FORMS.values()} == set(TOPICS) == set(ENTRY_TYPES) - {Decision}
    assert set(ENTRIES) == set(FORMS)


@pytest.mark.parametrize("name", ENTRIES)
def test_there_and_back(name: str) -> None:
    assert there_and_back(ENTRIES[name]) == ENTRIES[name]


@pytest.mark.parametrize("name", ENTRIES)
def test_what_is_written_now_is_the_golden_file_of_its_version(name: str) -> None:
    message = CODEC.encode(ENTRIES[name])
    assert message is not None
    file = GOLDEN / f"{name}-{FORMS[name].schema}.json"
    assert golden_text(message) == file.read_text("utf-8"), f"{file} never changes: a new form is a new version"


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_every_version_ever_written_can_be_read(file: Path) -> None:
    golden = json.loads(file.read_text("utf-8"))
    headers = tuple((name, value.encode()) for name, value in golden["headers"].items())
    record = Record(golden["topic"], 0, 0, 0, golden["key"].encode(), json.dumps(golden["value"]).encode(), headers)
    assert CODEC.decode(record) == ENTRIES[file.stem.rpartition("-")[0]]


decimals = st.decimals(min_value=0, max_value=Decimal("1E+20"), allow_nan=False, allow_infinity=False).filter(
    lambda number: number == 0 or number.adjusted() > -30
)


@given(st.lists(decimals, min_size=6, max_size=6), decimals.filter(bool))
def test_decimals_are_written_plainly_and_lose_nothing(numbers: list[Decimal], price: Decimal) -> None:
    kline = msgspec.structs.replace(
        a_kline(), open=price, high=price, low=price, close=price, volume=numbers[0], quote_volume=numbers[1]
    )
    message = CODEC.encode(kline)
    assert message is not None
    value = json.loads(message.value)
    assert value["close"] == format(price, "f")
    assert value["volume"] == format(numbers[0], "f")
    assert there_and_back(kline) == kline


def test_a_kline_of_history_has_no_stream_time() -> None:
    kline = msgspec.structs.replace(a_kline(), received_event_time=None, quote_volume=None)
    assert there_and_back(kline) == kline


class Kline2(msgspec.Struct, frozen=True):
    symbol: str
    price: Decimal
    venue: str


def _to_second(fields: dict[str, Any]) -> dict[str, Any]:
    return {"symbol": fields["symbol"], "price": fields["close"], "venue": "binance"}


SECOND = Codec("paper", forms={"Kline": Form(Kline2, msgspec.json.Decoder(Kline2).decode, (_to_second,))})


def test_an_older_version_is_brought_up_to_the_one_known() -> None:
    first = CODEC.encode(a_kline())
    assert first is not None
    assert SECOND.decode(record_of(first)) == Kline2("BTCUSDT", Decimal("49710.04"), "binance")


def test_a_newer_version_is_refused_by_name_in_one_line() -> None:
    headers = (("type", b"Kline"), ("schema", b"2"))
    with pytest.raises(CodecError, match=r"^KafkaStreams \[1\] at offset 9: this Kline has version 2, .* up to 1;.*$"):
        CODEC.decode(Record("KafkaStreams", 1, 9, 0, b"BTCUSDT", b"{}", headers))


def bent(**changed: object) -> bytes:
    message = CODEC.encode(a_kline())
    assert message is not None
    return json.dumps(json.loads(message.value) | changed).encode()


@pytest.mark.parametrize(
    ("headers", "value", "says"),
    [
        ((), b"{}", "type '' is not known"),
        ((("type", b"Surprise"), ("schema", b"1")), b"{}", "type 'Surprise' is not known"),
        ((("type", b"Kline"),), b"{}", "no version"),
        ((("type", b"Kline"), ("schema", b"0")), b"{}", "no version"),
        ((("type", b"Kline"), ("schema", b"1")), None, "cannot be read"),
        ((("type", b"Kline"), ("schema", b"1")), b"{}", "cannot be read"),
        ((("type", b"Kline"), ("schema", b"1")), b"\xff\x00", "cannot be read"),
        ((("type", b"Kline"), ("schema", b"1")), bent(close="NaN"), "a number of this Kline is none"),
        ((("type", b"Kline"), ("schema", b"1")), bent(close="-Infinity"), "no prices"),
        ((("type", b"Kline"), ("schema", b"1")), bent(quote_volume="sNaN"), "cannot be read|is none"),
        ((("type", b"Kline"), ("schema", b"1")), bent(quote_volume="1e-400"), "no prices"),
        ((("type", b"Kline"), ("schema", b"1")), bent(close="0"), "no prices"),
        ((("type", b"Kline"), ("schema", b"1")), bent(low="-1"), "no prices"),
        ((("type", b"Kline"), ("schema", b"1")), bent(volume="1e400"), "no prices"),
        ((("type", b"Kline"), ("schema", b"1"), ("received_event_time", b"soon")), bent(), "cannot be read"),
    ],
)
def test_what_no_bot_wrote_is_refused_in_one_line(
    headers: tuple[tuple[str, bytes], ...], value: bytes | None, says: str
) -> None:
    with pytest.raises(CodecError, match=says) as raised:
        CODEC.decode(Record("KafkaStreams", 0, 1, 0, b"BTCUSDT", value, headers))
    assert "\n" not in str(raised.value)


def test_keys_that_a_later_bot_added_are_skipped() -> None:
    headers = (("type", b"Kline"), ("schema", b"1"))
    decoded = CODEC.decode(Record("KafkaStreams", 0, 1, 0, b"BTCUSDT", bent(venue="here"), headers))
    assert isinstance(decoded, Kline)
    assert decoded.close == Decimal("49710.04")
