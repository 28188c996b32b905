"""Figures as people write them, and the tables of the commands that print what was stored, traded or tested."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from bot.app.snapshot import Snapshot
from bot.cli.invocation import typed
from bot.domain.kline import Kline
from bot.domain.money import ROUNDING, multiply, subtract
from bot.domain.order import Side, Trade
from bot.research.report import RunReport

LAST = 20
"""How many rows a table shows, the newest; --json prints them all."""

QUOTE_ASSETS = ("FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USD", "EUR", "TRY", "BTC", "ETH", "BNB")
GAIN, LOSS = "green", "red"

_Row = TypeVar("_Row")
_Cell = Text | str


def money(amount: Decimal) -> str:
    """Write an amount of the quote asset: `1,234.50`, `-3.00`."""
    return f"{amount:z,.2f}"


def signed(amount: Decimal) -> str:
    """Write a gain or loss of the quote asset with its sign: `+12.30`, `-3.00`, `0.00`."""
    text = money(amount)
    return f"+{text}" if amount > 0 and text.strip("0.,") else text


def percent(part: Decimal, whole: Decimal) -> str:
    """Write `part` as a signed share of `whole`: `-0.12 %`; empty where there is no whole."""
    return f"{signed(ROUNDING.divide(multiply(part, Decimal(100)), whole))} %" if whole else ""


def price(value: Decimal | None) -> str:
    """Write a price: two decimals from 100 up, four from 1 up, else at least five and four significant digits."""
    if value is None:
        return "-"
    if not value or abs(value) >= 100:
        return format(value, ",.2f")
    decimals = 4 if abs(value) >= 1 else min(12, max(5, 3 - value.adjusted()))
    return format(value, f",.{decimals}f")


def quantity(value: Decimal) -> str:
    """Write an amount of a base asset: at most eight decimals, none that are only zeros."""
    text = format(value, ",.8f")
    return text.rstrip("0").rstrip(".") if value else "0"


def utc(time_ms: int, pattern: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Write a time (ms) in UTC."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime(pattern)


def duration(seconds: int) -> str:
    """Write a time span in its two largest units: `8 s`, `1 min 23 s`, `3 h 5 min`, `2 d 4 h`."""
    for size, unit, rest_size, rest_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // rest_size
            return f"{seconds // size} {unit}" + (f" {rest} {rest_unit}" if rest else "")
    return f"{seconds} s"


def one_line(text: str) -> str:
    """Return text of any origin as one printable line: control characters and line ends become single spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def gain_style(amount: Decimal) -> str:
    """Return the colour of a gain or loss; the sign says the same without it."""
    return GAIN if amount > 0 else LOSS if amount < 0 else ""


def side_style(side: str) -> str:
    """Return the colour of BUY or SELL, none for anything else."""
    return {Side.BUY.value: "cyan", Side.SELL.value: "magenta"}.get(side, "")


def quote_asset(symbols: Iterable[str]) -> str:
    """Return the asset that all symbols end in, empty where it is not one of the usual ones."""
    symbols = tuple(symbols)
    return next((a for a in QUOTE_ASSETS if symbols and all(s.endswith(a) and s != a for s in symbols)), "")


def fee_text(trade: Trade) -> str:
    """Write what a trade's commission was, in each asset that was charged."""
    charged = trade.commissions or ((trade.commission_asset, trade.commission),)
    return " + ".join(f"{quantity(amount)} {one_line(asset)}" for asset, amount in charged)


def klines_table(klines: Iterable[Kline], last: int = LAST) -> RenderableType:
    """Show the newest of some klines, given oldest first; prices in the quote asset, volume in the base asset."""
    rows, total = _newest(klines, last)
    if not rows:
        return Text("no klines are stored")
    pattern = "%m-%d %H:%M" if all(kline.open_time % 60_000 == 0 for kline in rows) else "%m-%d %H:%M:%S"
    intervals = ", ".join(sorted({kline.interval for kline in rows}))
    title = f"{_shown(len(rows), total, 'klines')} of {intervals}, {_span(rows[0].open_time, rows[-1].open_time)}"
    cells = [
        [
            kline.symbol,
            utc(kline.open_time, pattern),
            *(price(value) for value in (kline.open, kline.high, kline.low, kline.close)),
            format(kline.volume, ",.0f" if kline.volume >= 1000 else ",.3f"),
            "yes" if kline.is_closed else "open",
        ]
        for kline in rows
    ]
    names = ("symbol", "opened", "open", "high", "low", "close", "volume", "done")
    return Group(block(title, names, cells, right=range(2, 7), gap=" "), *_rest(len(rows), total))


def trades_table(trades: Iterable[Trade], last: int = LAST) -> RenderableType:
    """Show the newest of some trades, given oldest first; prices in the quote asset, quantities in the base asset.

    To be printed with `soft_wrap`, so that no reason is cut.
    """
    rows, total = _newest(trades, last)
    if not rows:
        return Text("no trades are stored")
    title = f"{_shown(len(rows), total, 'trades')}, {_span(rows[0].time, rows[-1].time)}"
    cells: list[list[_Cell]] = [
        [
            utc(trade.time, "%m-%d %H:%M:%S"),
            Text(trade.side.value, style=side_style(trade.side.value)),
            trade.symbol,
            quantity(trade.quantity),
            price(trade.price),
            fee_text(trade),
            trade.reason,
        ]
        for trade in rows
    ]
    names = ("time", "side", "symbol", "quantity", "price", "fee", "reason")
    return Group(block(title, names, cells, right=(3, 4, 5), gap=" ", is_cut=False), *_rest(len(rows), total))


def wallet_table(snapshot: Snapshot) -> RenderableType:
    """Show every position with its worth, then cash, equity and profit; amounts in the quote asset."""
    if not snapshot.symbols and not snapshot.start_cash:
        return Text("no book is kept here yet")
    asset = quote_asset(view.symbol for view in snapshot.symbols)
    cells: list[list[_Cell]] = [
        [
            view.symbol,
            quantity(view.position.quantity),
            price(view.price),
            money(view.value),
            Text(signed(view.profit), gain_style(view.profit)),
        ]
        for view in snapshot.symbols
    ]
    profit, share = snapshot.profit, percent(snapshot.profit, snapshot.start_cash)
    cells += [
        ["cash", "", "", money(snapshot.cash), ""],
        ["equity", "", "", money(snapshot.equity), Text(signed(profit), gain_style(profit))],
    ]
    title = f"wallet of the {snapshot.mode} bot, amounts in {asset or 'the quote asset'}"
    foot = f"began with {money(snapshot.start_cash)}" + (f", so far {share}" if share else "")
    names = ("", "quantity", "last price", "value", "P/L")
    return Group(block(title, names, cells, right=range(1, 5)), Text(foot))


def status_table(status: Mapping[str, Any]) -> RenderableType:
    """Show the contract's status object: what runs and since when, what every symbol and actor is at."""
    running = f"runs as process {status['pid']}" if status["running"] else "is not running"
    title = "no book is kept here yet" if status["mode"] == "none" else f"the {status['mode']} bot {running}"
    facts = [f"equity {money(Decimal(status['equity']))}"]
    facts += [f"cash {money(Decimal(status['cash']))}"] if "cash" in status else []
    facts += [f"trades {status['trades']:,}"] if "trades" in status else []
    facts += [f"dead letters {len(status['dead_letters']):,}"] if status.get("dead_letters") else []
    refused = ", ".join(f"{name} {count:,}" for name, count in dict(status.get("skipped", {})).items())
    decided = ", ".join(f"{name} {count:,}" for name, count in dict(status.get("decisions", {})).items())
    trouble = [Text(f"UNWELL: {one_line(status['trouble'])}", "bold")] if status.get("trouble") else []
    halted = [Text(f"HALTED, no order leaves: {one_line(status['halted'])}", "bold")] if status.get("halted") else []
    stopped = [
        Text(f"STOPPED, no order of it leaves: {_stop(symbol, reason)}", "bold")
        for symbol, reason in status.get("stopped", {}).items()
    ]
    asked = "the exchange is asked" if status["running"] else "the next run asks the exchange"
    unknown = [
        Text(f"UNKNOWN, {asked}: {_unknown(symbol, order)}", "bold")
        for symbol, view in status["symbols"].items()
        for order in view.get("unknown", ())
    ]
    parts = [
        Text(title, "bold"),
        *trouble,
        *halted,
        *stopped,
        *unknown,
        Text(", ".join(facts)),
        *([Text(f"decided {decided}")] if decided else []),
        *([Text(f"refused {refused}")] if refused else []),
        *([Text(_outbox_line(status["publishing"], _BROKER))] if status.get("publishing") else []),
        *([Text(_outbox_line(status["archiving"], _DYNAMODB))] if status.get("archiving") else []),
    ]
    if status["symbols"]:
        parts += [Text(), _status_symbols(status["symbols"])]
    if status["actors"]:
        parts += [Text(), _status_actors(status["actors"])]
    errors = [Text(f"{one_line(a['name'])}: {one_line(a['last_error'])}") for a in status["actors"] if a["last_error"]]
    return Group(*parts, *([Text(), Text("last errors", "bold"), *errors] if errors else []))


_BROKER = {"up": "broker up", "connecting": "no broker yet", None: "to be published", "": "no broker"}
_DYNAMODB = {
    "up": "DynamoDB up",
    "connecting": "DynamoDB not asked yet",
    None: "to go to DynamoDB",
    "": "DynamoDB takes nothing",
}


def _outbox_line(outbox: Mapping[str, Any], words: Mapping[str | None, str]) -> str:
    """Say how the broker or DynamoDB is and what waits for it."""
    link = words.get(outbox["link"], words[""])
    depth, oldest_ms, dropped = outbox["depth"], outbox["oldest_ms"], outbox["dropped"]
    waits = "nothing waits" if not depth else f"{depth:,} wait, {outbox['bytes'] / 1e6:.1f} MB"
    since = "" if oldest_ms is None else f", the oldest since {utc(oldest_ms)} UTC"
    gone = f"; {dropped:,} open klines had to go" if dropped else ""
    reason = f": {one_line(outbox['reason'])}" if outbox["reason"] else ""
    return f"{link}{reason}; {waits}{since}{gone}"


def dead_letters_table(letters: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show the messages that were given up, oldest first, with what their handlers died of."""
    if not letters:
        return Text("no dead letters")
    cells: list[list[_Cell]] = [
        [str(one["number"]), utc(one["time"]), one_line(one["name"]), one["message_type"], one_line(one["error"])]
        for one in letters
    ]
    return block("dead letters", ("number", "time (UTC)", "actor", "message", "error"), cells, right=(0,))


def _stop(symbol: str, reason: str) -> str:
    name = symbol or "all entries"
    return f"{name}: {one_line(reason).removeprefix(f'{name}: ')}"


def _unknown(symbol: str, order: Mapping[str, str]) -> str:
    what = f"{order['side']} {quantity(Decimal(order['quantity']))} {symbol}, {order['client_order_id']}"
    reserved = Decimal(order["reserved"])
    return f"{what}, {money(reserved)} stay reserved" if reserved else what


def reconcile_table(found: Mapping[str, Any], stopped: Mapping[str, str], data_dir: Path) -> RenderableType:
    """Show the book beside the account, asset by asset, and what the differences are."""
    cells: list[list[_Cell]] = []
    for row in found["assets"]:
        beside = Decimal(row["beside"])
        said = "an order's fate is unknown" if row["unknown"] else "MISSING" if beside < 0 else "ok"
        amounts = [quantity(Decimal(row[key])) for key in ("book", "free", "locked")]
        cells.append([row["asset"], row["symbol"] or "cash", *amounts, quantity(beside), said])
    names = ("asset", "symbol", "in the book", "free", "locked", "beside it", "")
    parts: list[RenderableType] = [block("the book and the account", names, cells, right=range(2, 6))]
    for title, lines in (
        ("found", found["findings"]),
        ("booked", found["adjustments"]),
        ("free again", [symbol or "all entries" for symbol in found["freed"]]),
        ("stopped", [_stop(symbol, reason) for symbol, reason in stopped.items()]),
    ):
        if lines:
            parts += [Text(), Text(title, "bold"), *(Text(one_line(line)) for line in lines)]
    if stopped:
        parts.append(Text(f"accept it as it is with: {typed('reconcile', '--accept', data_dir=data_dir)}"))
    return Group(*parts)


def report_table(report: RunReport, fee: Decimal) -> RenderableType:
    """Show the outcome of a run over history beside buy-and-hold, fee paid once; amounts in the quote asset."""
    held = report.buy_and_hold(fee)
    profit, held_profit = subtract(report.equity, report.start_cash), subtract(held, report.start_cash)
    buys = sum(trade.side is Side.BUY for trade in report.trades)
    start, sells = money(report.start_cash), len(report.trades) - buys
    cells: list[list[_Cell]] = [
        ["messages taken", f"{report.bars:,}", ""],
        ["messages dropped", f"{report.dropped:,}", ""],
        ["trades", f"{len(report.trades):,} (BUY {buys:,}, SELL {sells:,})", ""],
        *[list[_Cell]((f"refused {name}", f"{count:,}", "")) for name, count in sorted(report.skipped.items())],
        ["start", start, start],
        *[list[_Cell]((f"{one.symbol} held at the end", quantity(one.position), "")) for one in report.symbols],
        ["cash", money(report.cash), ""],
        ["equity", money(report.equity), money(held)],
        ["P/L", Text(signed(profit), gain_style(profit)), Text(signed(held_profit), gain_style(held_profit))],
        ["P/L of the start", percent(profit, report.start_cash), percent(held_profit, report.start_cash)],
        ["fees paid", money(report.commissions_in_quote()), money(multiply(report.start_cash, fee))],
    ]
    title = f"{', '.join(one.symbol for one in report.symbols)}, amounts in {report.symbols[0].quote_asset}"
    table = block(title, ("", "the rule", "buy-and-hold"), cells, right=(1, 2))
    return Group(table, Text(), Text(verdict(report, fee)))


def verdict(report: RunReport, fee: Decimal) -> str:
    """Say in one line whether the rule made money, and whether it beat buy-and-hold."""
    asset = report.symbols[0].quote_asset
    profit = subtract(report.equity, report.start_cash)
    ahead = subtract(report.equity, report.buy_and_hold(fee))
    made = "made" if profit > 0 else "lost"
    result = f"{made} {money(abs(profit))} {asset}" if profit else "neither made nor lost money"
    place = f"{money(abs(ahead))} {asset} {'ahead of' if ahead > 0 else 'behind'}" if ahead else "level with"
    return f"The rule {result} and ended {place} buy-and-hold."


def grid(rows: Sequence[Sequence[Text]], right: Collection[int] = (), gap: str = " ") -> list[Text]:
    """Return a line a row, its cells padded to the widest of their column; columns in `right` end together."""
    widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        line = Text()
        for number, (cell, cells) in enumerate(zip(row, widths, strict=True)):
            space = " " * (cells - cell.cell_len)
            line.append(gap if number else "").append(space if number in right else "").append_text(cell)
            line.append("" if number in right else space)
        line.rstrip()
        lines.append(line)
    return lines


def _status_symbols(symbols: Mapping[str, Mapping[str, Any]]) -> Text:
    cells = []
    for symbol, view in symbols.items():
        seen = "none" if view["last_kline_ms"] is None else utc(view["last_kline_ms"])
        value = price(None if view["price"] is None else Decimal(view["price"]))
        cells.append([symbol, value, quantity(Decimal(view["position"])), seen])
    return block("", ("symbol", "price", "position", "last kline (UTC)"), cells, right=(1, 2))


def _status_actors(actors: Sequence[Mapping[str, Any]]) -> Text:
    cells = [
        [actor["name"], actor["state"], str(actor["restarts"]), str(actor["mailbox"]), duration(actor["uptime_s"])]
        for actor in actors
    ]
    return block("", ("actor", "state", "restarts", "waiting", "up for"), cells, right=(2, 3, 4))


def _newest(items: Iterable[_Row], count: int) -> tuple[list[_Row], int]:
    """Return the last `count` of `items` and how many there were; no more than `count` are held."""
    kept: deque[_Row] = deque(maxlen=count)
    total = 0
    for item in items:
        kept.append(item)
        total += 1
    return list(kept), total


def _shown(shown: int, total: int, what: str) -> str:
    return f"last {shown:,} of {total:,} {what}" if shown < total else f"{total:,} {what}"


def _rest(shown: int, total: int) -> list[Text]:
    return [Text(f"these are the last {shown:,}; --json prints all {total:,}")] if shown < total else []


def _span(first_ms: int, last_ms: int) -> str:
    return f"{utc(first_ms, '%Y-%m-%d %H:%M')} to {utc(last_ms, '%Y-%m-%d %H:%M')} UTC"


def block(
    title: str,
    names: Sequence[str],
    cells: Iterable[Sequence[_Cell]],
    right: Collection[int],
    gap: str = "  ",
    is_cut: bool = True,
) -> Text:
    """Return a titled table; strings of any origin are shown as they are.

    A line too long ends in an ellipsis, or stays whole where it is not `is_cut`.
    """
    rows = [[Text(name, style="bold") for name in names]]
    rows += [[cell if isinstance(cell, Text) else Text(one_line(cell)) for cell in row] for row in cells]
    block = Text("\n").join([*([Text(title)] if title else []), *grid(rows, right, gap)])
    block.no_wrap, block.overflow = True, "ellipsis" if is_cut else "ignore"
    return block
