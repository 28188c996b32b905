"""Log entries as messages of a topic, and back. Source: contract, section 4; house, Versions on Kafka.

A message says its type's name and the version of its form in headers. A field added with a default keeps the version;
anything else is a new one, with an upcaster from the one before it. Every version ever written has a golden file.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, get_args

import msgspec

from bot.domain.kline import Kline
from bot.domain.order import Side, Trade
from bot.messages import TOPICS, BookEvent, LogEntry
from bot.ports import Record

RECEIVED_EVENT_TIME = "received_event_time"
"""A header of klines that came from a stream: its own event time in ms, which the contract's value has no key for."""


class CodecError(ValueError):
    """A message that cannot be read; the text is one line that names it and the fix."""


class Message(NamedTuple):
    """What is given to a producer, and what a record holds."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


class _KlineValue(msgspec.Struct):
    ticker: str
    symbol: str
    interval: str
    open_time: int
    close_time: int
    event_time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal | None
    is_closed: bool


class _TradeValue(msgspec.Struct, omit_defaults=True):
    symbol: str
    side: Side
    time: int
    price: Decimal
    quantity: Decimal
    quote_quantity: Decimal
    commission: Decimal
    commission_asset: str
    close: Decimal
    order_id: int
    client_order_id: str
    mode: str
    bot_id: str
    reason: str = ""
    commissions: dict[str, Decimal] = {}


_TRADE_FIELDS = _TradeValue.__struct_fields__[:-1]

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class Form(NamedTuple):
    """How a type stands in messages: `upcasters[0]` makes version 2 of version 1, and so on up to the one written."""

    kind: type
    read: Callable[[bytes], Any]
    upcasters: tuple[Upcaster, ...] = ()

    @property
    def schema(self) -> int:
        """The version that is written."""
        return len(self.upcasters) + 1


_TRADE_VALUE = msgspec.json.Decoder(_TradeValue)


def _read_trade(value: bytes) -> Trade:
    read = _TRADE_VALUE.decode(value)
    fields = {name: getattr(read, name) for name in _TRADE_FIELDS}
    return Trade(**fields, commissions=tuple(read.commissions.items()))


FORMS: Mapping[str, Form] = {
    kind.__name__: Form(kind, _read_trade if kind is Trade else msgspec.json.Decoder(kind).decode)
    for kind in (Kline, Trade, *get_args(BookEvent))
}

_ENCODER = msgspec.json.Encoder(decimal_format="string")
_PLAIN = msgspec.json.Decoder()


_Head = tuple[bytes | None, bytes | None]
"""The headers type and schema."""


class Codec:
    """Writes and reads the messages of one mode, on topics that begin with `topic_prefix`."""

    def __init__(self, mode: str, topic_prefix: str = "", forms: Mapping[str, Form] = FORMS) -> None:
        self._forms = forms
        self._known: dict[_Head, tuple[Form, int, Sequence[Upcaster]]] = {}
        self._topics = {kind: topic_prefix + topic for kind, topic in TOPICS.items()}
        self._headers: dict[type, list[tuple[str, str | bytes | None]]] = {
            form.kind: [("type", name.encode()), ("schema", b"%d" % form.schema), ("mode", mode.encode())]
            for name, form in forms.items()
            if form.kind in self._topics
        }

    def encode(self, entry: LogEntry) -> Message | None:
        """Return an entry's message, None if its type has no topic."""
        kind = type(entry)
        headers = self._headers.get(kind)
        if headers is None:
            return None
        value: Any = entry
        if isinstance(entry, Kline):
            key = entry.symbol
            if entry.received_event_time is not None:
                headers = [*headers, (RECEIVED_EVENT_TIME, b"%d" % entry.received_event_time)]
            value = _KlineValue(
                key,
                key,
                entry.interval,
                entry.open_time,
                entry.close_time,
                entry.event_time,
                entry.open,
                entry.high,
                entry.low,
                entry.close,
                entry.volume,
                entry.quote_volume,
                entry.is_closed,
            )
        elif isinstance(entry, Trade):
            key = entry.symbol
            fields = {name: getattr(entry, name) for name in _TRADE_FIELDS}
            value = _TradeValue(**fields, commissions=dict(entry.commissions))
        else:
            key = entry.name
        written = _ENCODER.encode(value)
        if _has_exponent(written, key if kind is Kline else None):
            written = _ENCODER.encode(_plainly(msgspec.to_builtins(value, builtin_types=(Decimal,))))
        return Message(self._topics[kind], key.encode(), written, headers)

    def decode(self, record: Record) -> LogEntry:
        """Return the entry that a record holds. Raises CodecError, also for a version newer than what is known."""
        headers = dict(record.headers)
        head = (headers.get("type"), headers.get("schema"))
        # Of a kline all of this takes longer than its JSON: each pair that is right is looked at once.
        known = self._known.get(head)
        if known is None:
            known = self._known[head] = self._form_of(head, record)
        form, version, upcasters = known
        try:
            value = record.value or b""
            entry = form.read(_upcast(value, upcasters) if upcasters else value)
            received = headers.get(RECEIVED_EVENT_TIME)
            if received is not None and type(entry) is Kline:
                entry = msgspec.structs.replace(entry, received_event_time=int(received))
        except (msgspec.DecodeError, ValueError, KeyError, TypeError, RecursionError) as error:
            text = " ".join(str(error).split())[:200]
            name = form.kind.__name__
            raise CodecError(f"{_place(record)}: this {name} of version {version} cannot be read: {text}") from None
        _check_numbers(entry, record)
        return entry  # type: ignore[no-any-return]

    def _form_of(self, head: _Head, record: Record) -> tuple[Form, int, Sequence[Upcaster]]:
        """Return the form and version that the headers name, and what makes the newest of it. Raises CodecError."""
        name, schema = (head[0] or b"").decode("ascii", "replace"), head[1] or b""
        form, place = self._forms.get(name), _place(record)
        if form is None:
            raise CodecError(f"{place}: a message of type {name[:60]!r} is not known; read it with a newer bot")
        if not re.fullmatch(rb"[1-9]\d{0,8}", schema):
            raise CodecError(f"{place}: the header schema of this {name} is no version; it was not written by a bot")
        version = int(schema)
        if version > form.schema:
            raise CodecError(
                f"{place}: this {name} has version {version}, and this bot reads versions up to {form.schema}; "
                "read it with a newer bot"
            )
        return form, version, form.upcasters[version - 1 :]


def _upcast(value: bytes, upcasters: Sequence[Upcaster]) -> bytes:
    fields = _PLAIN.decode(value)
    for upcaster in upcasters:
        fields = upcaster(fields)
    return _ENCODER.encode(fields)


def _has_exponent(written: bytes, symbol: str | None) -> bool:
    """Return whether a decimal was written with an exponent, or a text looks so, which costs a second writing.

    Of a kline only its symbol, which stands there twice, has an E of its own: counting is far faster than a search.
    """
    if symbol is not None:
        return written.count(b"E") != 2 * symbol.count("E")
    return b"E-" in written or b"E+" in written


def _plainly(value: Any) -> Any:
    """Return built-in values with every decimal as text without exponent."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return {name: _plainly(item) for name, item in value.items()}
    return [_plainly(item) for item in value] if isinstance(value, list | tuple) else value


_LEAST, _MOST = Decimal("1E-40"), Decimal("1E+40")


def _place(record: Record) -> str:
    return f"{record.topic} [{record.partition}] at offset {record.offset}"


def _check_numbers(entry: Any, record: Record) -> None:
    """Refuse numbers that no price or amount is: whoever can write to the topic wrote this."""
    try:
        if type(entry) is Kline:
            prices = (entry.open, entry.high, entry.low, entry.close)
            is_right = min(prices) >= _LEAST and max(prices) <= _MOST and _is_amount(entry.volume)
            if not is_right or not (entry.quote_volume is None or _is_amount(entry.quote_volume)):
                raise CodecError(
                    f"{_place(record)}: the numbers of this Kline are no prices; it was not written by a bot"
                )
        elif type(entry) is Trade:
            numbers = (entry.price, entry.quantity, entry.quote_quantity, entry.commission, entry.close)
            if not all(map(_is_amount, (*numbers, *(amount for _, amount in entry.commissions)))):
                raise CodecError(
                    f"{_place(record)}: the numbers of this Trade are no amounts; it was not written by a bot"
                )
    except InvalidOperation:
        raise CodecError(
            f"{_place(record)}: a number of this {type(entry).__name__} is none; it was not written by a bot"
        ) from None


def _is_amount(number: Decimal) -> bool:
    return not number or _LEAST <= number <= _MOST
