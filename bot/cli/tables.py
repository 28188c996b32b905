"""Figures as people write them, and the tables of the commands that print what was stored, traded or tested."""

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bot.app.snapshot import Snapshot
from bot.domain.kline import Kline
from bot.domain.money import ROUNDING, multiply, subtract
from bot.domain.order import Side, Trade
from bot.research.report import RunReport

LAST = 20
"""How many rows a table shows, the newest; --json prints them all."""

QUOTE_ASSETS = ("FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USD", "EUR", "TRY", "BTC", "ETH", "BNB")
GAIN, LOSS = "green", "red"

_Row = TypeVar("_Row")


def money(amount: Decimal) -> str:
    """Write an amount of the quote asset: `1,234.50`, `-3.00`."""
    text = format(amount, ",.2f")
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text


def signed(amount: Decimal) -> str:
    """Write a gain or loss of the quote asset with its sign: `+12.30`, `-3.00`, `0.00`."""
    text = money(amount)
    return f"+{text}" if amount > 0 and text.strip("0.,") else text


def percent(part: Decimal, whole: Decimal) -> str:
    """Write `part` as a signed share of `whole`: `-0.12 %`; empty where there is no whole."""
    return f"{signed(ROUNDING.divide(multiply(part, Decimal(100)), whole))} %" if whole else ""


def price(value: Decimal | None) -> str:
    """Write a price with two decimals from 100 up, and with at least four significant digits below."""
    if value is None:
        return "-"
    decimals = 2 if abs(value) >= 100 or not value else min(12, max(4, 3 - value.adjusted()))
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
    intervals = sorted({kline.interval for kline in rows})
    pattern = "%Y-%m-%d %H:%M" if all(kline.open_time % 60_000 == 0 for kline in rows) else "%Y-%m-%d %H:%M:%S"
    table = _table(f"{_shown(len(rows), total, 'klines')}, interval {', '.join(intervals)}, times in UTC")
    for name in ("symbol", "opened"):
        table.add_column(name, no_wrap=True)
    for name in ("open", "high", "low", "close", "volume"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("closed", no_wrap=True)
    for kline in rows:
        prices = (price(value) for value in (kline.open, kline.high, kline.low, kline.close))
        closed = "yes" if kline.is_closed else "open"
        table.add_row(Text(kline.symbol), utc(kline.open_time, pattern), *prices, _volume(kline.volume), closed)
    return table


def trades_table(trades: Iterable[Trade], last: int = LAST) -> RenderableType:
    """Show the newest of some trades, given oldest first; prices in the quote asset, quantities in the base asset."""
    rows, total = _newest(trades, last)
    if not rows:
        return Text("no trades are stored")
    span = f"{utc(rows[0].time)} to {utc(rows[-1].time)} UTC"
    table = _table(f"{_shown(len(rows), total, 'trades')}, {span}")
    for name in ("time", "side", "symbol"):
        table.add_column(name, no_wrap=True)
    for name in ("quantity", "price", "fee"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reason", ratio=1, no_wrap=True, overflow="ellipsis")
    for trade in rows:
        side = trade.side.value
        table.add_row(
            utc(trade.time, "%m-%d %H:%M:%S"),
            Text(side, style=side_style(side)),
            Text(trade.symbol),
            quantity(trade.quantity),
            price(trade.price),
            Text(fee_text(trade)),
            Text(one_line(trade.reason)),
        )
    return table


def wallet_table(snapshot: Snapshot) -> RenderableType:
    """Show every position with its worth, then cash, equity and profit; amounts in the quote asset."""
    if not snapshot.symbols and not snapshot.start_cash:
        return Text("no book is kept here yet")
    asset = quote_asset(view.symbol for view in snapshot.symbols)
    table = _table(f"wallet ({snapshot.mode}), amounts in {asset or 'the quote asset'}")
    table.add_column("", no_wrap=True)
    for name in ("quantity", "last price", "value", "P/L"):
        table.add_column(name, justify="right", no_wrap=True)
    for view in snapshot.symbols:
        held, profit = quantity(view.position.quantity), Text(signed(view.profit), gain_style(view.profit))
        table.add_row(Text(view.symbol), held, price(view.price), money(view.value), profit)
    table.add_section()
    table.add_row("cash", "", "", money(snapshot.cash), "")
    share = percent(snapshot.profit, snapshot.start_cash)
    profit = Text(f"{signed(snapshot.profit)} ({share})" if share else signed(snapshot.profit))
    profit.stylize(gain_style(snapshot.profit))
    table.add_row("equity", "", "", money(snapshot.equity), profit)
    return Group(table, Text(f" began with {money(snapshot.start_cash)}"))


def status_table(status: Mapping[str, Any]) -> RenderableType:
    """Show the contract's status object: what runs and since when, what every symbol and actor is at."""
    running = f"runs as process {status['pid']}" if status["running"] else "is not running"
    mode = "no book is kept here yet" if status["mode"] == "none" else f"the {status['mode']} bot {running}"
    facts = [f"equity {money(Decimal(status['equity']))}"]
    facts += [f"cash {money(Decimal(status['cash']))}"] if "cash" in status else []
    facts += [f"{status['trades']:,} trades"] if "trades" in status else []
    facts += [f"{name} refused {count:,} times" for name, count in dict(status.get("skipped", {})).items()]
    parts: list[RenderableType] = [Text(one_line(mode)), Text(", ".join(facts))]
    if status["symbols"]:
        symbols = _table("symbols")
        symbols.add_column("symbol", no_wrap=True)
        for name in ("price", "position", "last kline (UTC)"):
            symbols.add_column(name, justify="right", no_wrap=True)
        for symbol, view in status["symbols"].items():
            last, value = view["last_kline_ms"], view["price"]
            seen = "none" if last is None else utc(last)
            shown = price(None if value is None else Decimal(value))
            symbols.add_row(Text(symbol), shown, quantity(Decimal(view["position"])), seen)
        parts.append(symbols)
    if status["actors"]:
        parts.append(_actors_table(status["actors"]))
    return Group(*parts)


def report_table(report: RunReport, fee: Decimal) -> RenderableType:
    """Show the outcome of a run over history beside buy-and-hold, fee paid once; amounts in the quote asset."""
    asset = report.symbols[0].quote_asset
    held = report.buy_and_hold(fee)
    profit, held_profit = subtract(report.equity, report.start_cash), subtract(held, report.start_cash)
    table = _table(f"{', '.join(outcome.symbol for outcome in report.symbols)}, amounts in {asset}")
    table.add_column("", no_wrap=True)
    for name in ("the rule", "buy-and-hold"):
        table.add_column(name, justify="right", no_wrap=True)
    buys = sum(trade.side is Side.BUY for trade in report.trades)
    table.add_row("messages taken", f"{report.bars:,}", "")
    table.add_row("messages dropped", f"{report.dropped:,}", "")
    table.add_row("trades", f"{len(report.trades):,} ({buys:,} BUY, {len(report.trades) - buys:,} SELL)", "")
    for name, count in sorted(report.skipped.items()):
        table.add_row(f"refused: {name}", f"{count:,}", "")
    # A BUY of buy-and-hold pays its fee in coins: what was kept back is worth more or less by the end.
    table.add_row("fees paid", money(report.commissions_in_quote()), money(multiply(report.start_cash, fee)))
    table.add_section()
    table.add_row("start", money(report.start_cash), money(report.start_cash))
    table.add_row("cash", money(report.cash), "")
    for outcome in report.symbols:
        table.add_row(f"{outcome.symbol} held", quantity(outcome.position), "")
    table.add_row("equity", money(report.equity), money(held))
    table.add_row(
        "P/L",
        Text(f"{signed(profit)} ({percent(profit, report.start_cash)})", gain_style(profit)),
        Text(f"{signed(held_profit)} ({percent(held_profit, report.start_cash)})", gain_style(held_profit)),
    )
    return Group(table, Text(verdict(report, fee)))


def verdict(report: RunReport, fee: Decimal) -> str:
    """Say in one line whether the rule made money, and whether it beat buy-and-hold."""
    asset = report.symbols[0].quote_asset
    profit = subtract(report.equity, report.start_cash)
    ahead = subtract(report.equity, report.buy_and_hold(fee))
    made = "made" if profit > 0 else "lost" if profit < 0 else "neither made nor lost money:"
    against = f"{money(abs(ahead))} {asset} {'more' if ahead > 0 else 'less'} than buy-and-hold"
    return f"The rule {made} {money(abs(profit))} {asset}, {against if ahead else 'the same as buy-and-hold'}."


def _actors_table(actors: Iterable[Mapping[str, Any]]) -> Table:
    table = _table("actors")
    for name in ("name", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("restarts", "waiting", "up"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last error", ratio=1, overflow="fold")
    for actor in actors:
        table.add_row(
            Text(actor["name"]),
            Text(actor["state"], style="" if actor["state"] == "running" else "bold"),
            str(actor["restarts"]),
            str(actor["mailbox"]),
            duration(actor["uptime_s"]),
            Text(one_line(actor["last_error"] or "")),
        )
    return table


def _newest(items: Iterable[_Row], count: int) -> tuple[list[_Row], int]:
    """Return the last `count` of `items` and how many there were; no more than `count` are held."""
    kept: deque[_Row] = deque(maxlen=count)
    total = 0
    for item in items:
        kept.append(item)
        total += 1
    return list(kept), total


def _shown(shown: int, total: int, what: str) -> str:
    return f"the last {shown:,} of {total:,} {what}" if shown < total else f"{total:,} {what}"


def _volume(value: Decimal) -> str:
    return format(value, ",.0f") if value >= 1000 else format(value, ",.3f")


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
