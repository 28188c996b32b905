"""`why`: what was decided at a moment or for an order, from what, and what came of it; needs no keys, no network."""

import argparse
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.text import Text

from bot.adapters.sqlite import ActorEvent
from bot.app.why import Answer, Step, WhyError, why_moment, why_order
from bot.cli.books import directory_of
from bot.cli.tables import block, fee_text, money, one_line, price, quantity, side_style, utc
from bot.domain.strategy import Thresholds
from bot.supervision import ActorStarted, SystemClock

DAY_MS = 86_400_000
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,3}))?)?", re.ASCII)


def why(arguments: argparse.Namespace) -> int:
    """Explain a message by symbol and time, or by the client order id of its signal."""
    directory = directory_of(arguments)
    if arguments.time is not None:
        symbol = arguments.what.upper()
        answer = why_moment(directory, symbol, moment_ms(arguments.time, SystemClock().now_ms()))
    elif re.fullmatch(r"[A-Z0-9]{3,20}", arguments.what):
        raise WhyError(f"why {arguments.what}: give a time too, such as now, 07:44:38 or 2026-11-28T07:44:38")
    else:
        answer = why_order(directory, arguments.what)
    if arguments.json:
        print(json.dumps(answer.as_json()))
    else:
        Console().print(*_shown(answer), sep="\n", soft_wrap=True)
    return 0


def moment_ms(text: str, now_ms: int, is_from: bool = False) -> int | None:
    """Return the moment (ms UTC) that `text` means, None for "now"; without milliseconds its whole second is meant.

    That is the second's end, or its begin where something is wanted from then on (`is_from`).

    It may be ISO 8601 (UTC unless it names an offset), a time of today, or ms since 1970. Raises WhyError.
    """
    if text == "now":
        return None
    if re.fullmatch(r"\d{12,14}", text, re.ASCII):
        return int(text)
    clock = _CLOCK.fullmatch(text)
    try:
        if clock is not None:
            hour, minute, second = int(clock[1]), int(clock[2]), int(clock[3] or 0)
            today = datetime.fromtimestamp(now_ms // 1000, UTC)
            moment = today.replace(hour=hour, minute=minute, second=second, microsecond=0)
            moment += timedelta(milliseconds=int((clock[4] or "0").ljust(3, "0")))
        else:
            moment = datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        time_ms = round(moment.timestamp() * 1000)
        if time_ms < 0:
            raise ValueError("before 1970")
    except (ValueError, OverflowError):
        raise WhyError(
            f"{text!r} is no time: write now, 07:44:38, 2026-11-28T07:44:38 (UTC) or milliseconds since 1970"
        ) from None
    return time_ms if is_from or "." in text else time_ms + 999


def _shown(answer: Answer) -> list[Text]:
    step = answer.step
    if step is None:
        lines = [Text(f"{answer.symbol}: the message of this order is not stored (any more)", "bold")]
    else:
        lines = [_title(answer, step), _table(answer), Text(), _reason(step)]
        others = [one for one in answer.steps if one is not step and one.decided_at is not None]
        lines += [Text(f"  {_time(one)} {one.decision}: {one_line(one.reason)}") for one in others]
    lines += _order(answer)
    # All actors start with the process, which has a line of its own.
    near = [
        (one.time, f"{one.name} {one.event}, {one_line(one.detail)}") for one in answer.events if not _is_start(one)
    ]
    near += [(start, "the process started") for start in answer.starts]
    lines += [Text(f"near it: {utc(time)} {said}") for time, said in sorted(near)]
    if step is not None and not near:
        lines.append(Text("near it: no failure, no restart within 60 s"))
    return lines


def _is_start(event: ActorEvent) -> bool:
    return event.event == ActorStarted.__name__


def _title(answer: Answer, step: Step) -> Text:
    title = Text(f"{answer.symbol}, message of {utc(step.event_time, '%Y-%m-%d')} {_time(step)} UTC", "bold")
    if answer.asked_ms is not None and (early := answer.asked_ms - step.event_time) > 1_000:
        title.append(f", the last one before {utc(answer.asked_ms)}, {early / 1000:,.1f} s earlier")
    return title


def _table(answer: Answer) -> Text:
    cells: list[list[Text | str]] = []
    for number, step in enumerate(answer.steps):
        bounds = step.thresholds or Thresholds()
        change = step.change_percent
        cells.append(
            [
                ">" if number == answer.index else "",
                _time(step) + (" after a gap" if step.is_gap else ""),
                "closed" if step.is_closed else "open",
                price(step.close),
                "-" if change is None else f"{change:+.2f} %",
                price(bounds.buy),
                price(bounds.sell),
                "-" if step.position is None else quantity(step.position),
                Text(step.decision, side_style(step.decision)),
            ]
        )
    names = ("", "time", "candle", "close", "change", "buys at", "sells at", "held", "decision")
    return block("", names, cells, right=(3, 4, 5, 6, 7))


def _reason(step: Step) -> Text:
    return Text.assemble((f"{step.decision}: ", "bold"), one_line(step.reason))


def _order(answer: Answer) -> Sequence[Text]:
    order = answer.order
    if order is None:
        return []
    intent = order.intent
    detail = f": {one_line(order.detail)}" if order.detail else ""
    lines = [
        Text(
            f"order {intent.client_order_id}: {intent.side.value} {quantity(intent.quantity)} "
            f"decided at {price(intent.close)}, {order.status.value}{detail}"
        ),
        Text(f"  {one_line(intent.reason)}"),
    ]
    for fill in order.fills:
        lines.append(
            Text(
                f"  fill {fill.trade_id}: {quantity(fill.quantity)} at {price(fill.price)}, "
                f"commission {quantity(fill.commission)} {one_line(fill.commission_asset)}, {utc(fill.time)}"
            )
        )
    trade = answer.trade
    if trade is not None:
        lines.append(
            Text(
                f"  trade: {quantity(trade.quantity)} for {money(trade.quote_quantity)} "
                f"at {price(trade.price)}, fee {fee_text(trade)}"
            )
        )
    return lines


def _time(step: Step) -> str:
    return f"{utc(step.event_time, '%H:%M:%S')}.{step.event_time % 1000:03}"
