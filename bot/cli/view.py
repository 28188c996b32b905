"""The live view of a running bot, drawn from snapshots, and the words that are left when it ends."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import reduce
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bot.actors.monitor import Refusal
from bot.app.snapshot import Snapshot, SymbolView
from bot.cli.invocation import typed
from bot.cli.tables import (
    duration,
    fee_text,
    gain_style,
    grid,
    money,
    one_line,
    percent,
    price,
    quantity,
    quote_asset,
    side_style,
    signed,
    utc,
)
from bot.domain.money import ZERO, add, subtract
from bot.domain.order import Trade
from bot.messages import Notice
from bot.supervision import ActorStatus, SystemClock

REFRESH_S = 0.25
DAY_S = 86_400
DAY_MS = 1000 * DAY_S
BUSY_MS = 5_000
"""From here on a message that is still being handled is worth a line."""
ENDED = ("restarting", "quarantined", "stopped")
TROUBLES = 2
"""How many actors with something wrong have a line of their own."""

MODES = {
    "demo": "the MARKET IS SIMULATED, the MONEY IS PAPER",
    "paper": "the market is real, the MONEY IS PAPER",
    "testnet": "an exchange for tests, its money is TEST MONEY",
    "live": "REAL ORDERS, REAL MONEY",
    "replay": "the MARKET IS HISTORY, the MONEY IS PAPER",
}
_STYLES = {"live": "bold white on red"}
_TO_ASCII = str.maketrans({"─": "-", "…": "~"})


def render(snapshot: Snapshot, width: int, now_ms: int, height: int = 24) -> Text:
    """Draw a snapshot as at most `height` lines of at most `width` columns; `now_ms` is the time in UTC.

    Nothing is said by colour alone. What does not fit is counted, or it is older than what is shown.
    """
    actors = _actors(snapshot.actors, width, most=max(2, height // 6))
    symbols = _symbols(snapshot.symbols, now_ms, most=max(6, height - len(actors) - 20))
    # Not free: title, symbols' heading, wallet, decisions, the headings of trades, refusals and actors, foot.
    free = height - 8 - len(actors) - len(symbols) + 1
    notices = snapshot.notices[-max(1, free // 4) :] if free > 4 else ()
    free -= len(notices) + bool(notices)
    refusal_rows = max(1, min(len(snapshot.refusals), free // 3))
    trades = snapshot.trades[-max(1, free - refusal_rows) :]
    refusals = snapshot.refusals[-max(1, free - max(1, len(trades))) :]
    lines = [
        _title(snapshot, width, now_ms),
        *symbols,
        _wallet(snapshot, width),
        Text.assemble(("Decisions", "bold"), f" {_total(snapshot.decisions)}"),
        _heading(f"Trades {snapshot.trade_count:,}", width),
        *(_trades(trades, width, now_ms) or [Text("none yet")]),
        _heading(f"Refusals {_total(dict(snapshot.skipped))}", width),
        *(_refusals(refusals, now_ms) or [Text("none yet")]),
        *([_heading("Notices", width), *_notices(notices, now_ms)] if notices else []),
        _heading(_actors_title(snapshot.actors), width),
        *actors,
    ]
    lines = [*lines[: max(height, 2) - 1], Text("Ctrl-C stops the bot in order.", style="dim")]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    frame = Text("\n").join(lines)
    frame.no_wrap, frame.overflow, frame.end = True, "ellipsis", ""
    return frame


class LiveView:
    """A terminal's live view, as a context manager: entering takes the screen, leaving gives it back as it was."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._clock = SystemClock()
        # A whole screen of its own is repainted in place, survives a resize, and leaves the scrollback alone.
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()
        if kind is None:
            self._console.print("Stopping in order; Ctrl-C once more ends at once.")

    def run(self, snapshot_source: Callable[[], Snapshot], until: threading.Event) -> None:
        """Draw what `snapshot_source` returns, four times a second, until `until` is set."""
        while not until.is_set():
            self._draw(snapshot_source(), self._clock.now_ms())
            until.wait(REFRESH_S)

    def _draw(self, snapshot: Snapshot, now_ms: int) -> None:
        width, height = self._console.size
        frame = render(snapshot, width, now_ms, height)
        if self._console.options.ascii_only:
            frame.plain = frame.plain.translate(_TO_ASCII).encode("ascii", "replace").decode("ascii")
        self._live.update(frame, refresh=True)


def summary(snapshot: Snapshot, seconds: float, data_dir: Path | None = None) -> str:
    """Say what a run of `seconds` did, and where it is kept; amounts in the quote asset."""
    asset = quote_asset(view.symbol for view in snapshot.symbols)
    share = percent(snapshot.profit, snapshot.start_cash)
    restarts = {actor.name: actor.restarts for actor in snapshot.actors if actor.restarts}
    taken = {view.symbol: view.messages for view in snapshot.symbols}
    held = [f"{v.symbol} {quantity(v.position.quantity)}" for v in snapshot.symbols if v.position.quantity]
    facts = {
        "messages": _total(taken),
        "decisions": _total(snapshot.decisions),
        "trades": f"{snapshot.trade_count:,}",
        "refusals": _total(dict(snapshot.skipped)),
        "cash": f"{money(snapshot.cash)} {asset}".rstrip(),
        "positions": ", ".join(held) or "none",
        "equity": f"{money(snapshot.equity)} {asset}".rstrip()
        + f", {signed(snapshot.profit)}{f' ({share})' if share else ''}"
        + f" from {money(snapshot.start_cash)}",
        "restarts": _total(restarts),
    }
    if data_dir is not None:
        facts["stored in"] = str(data_dir)
        facts["see it again"] = typed("trades", data_dir=data_dir)
        facts["or with"] = "klines, wallet or status in the place of trades"
    head = f"Bulkhead {snapshot.mode} ran for {duration(int(seconds))}: {MODES.get(snapshot.mode, 'no market')}."
    return "\n".join([head, *(f"  {name:<14}{said}" for name, said in facts.items())])


def _total(counts: dict[str, int]) -> str:
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    return f"{sum(counts.values()):,}" + (f" ({parts})" if parts else "")


def _title(snapshot: Snapshot, width: int, now_ms: int) -> Text:
    said = f" {snapshot.mode.upper()}: {MODES.get(snapshot.mode, 'no market, no money')} "
    said += "HALTED " if snapshot.halted else ""
    said += f"STOPPED {','.join(symbol for symbol, _ in snapshot.stopped)} " if snapshot.stopped else ""
    line = Text.assemble(("Bulkhead", "bold"), " ", (one_line(said), _STYLES.get(snapshot.mode, "bold reverse")))
    clock = utc(now_ms, "%H:%M:%S UTC")
    return line.append(clock.rjust(width - line.cell_len)) if line.cell_len + len(clock) < width else line


def _heading(title: str, width: int) -> Text:
    said = one_line(title)
    return Text.assemble((said, "bold"), (" " + "─" * max(0, width - len(said) - 1), "dim"))


def _symbols(views: Sequence[SymbolView], now_ms: int, most: int) -> list[Text]:
    """Return a heading and a line a symbol; of more than `most` symbols the last line sums up the rest."""
    shown = views if len(views) <= most else views[: most - 1]
    asset = quote_asset(view.symbol for view in views)
    names = ("symbol", "price", "change", "position", f"value {asset}".rstrip(), f"P/L {asset}".rstrip(), "feed, kline")
    rows = [[Text(name, style="bold") for name in names]]
    for view in shown:
        change, style = _change(view)
        rows.append(
            [
                Text(one_line(view.symbol)),
                Text(price(view.price)),
                Text(change, style=style),
                Text(quantity(view.position.quantity)),
                Text(money(view.value)),
                Text(signed(view.profit), style=gain_style(view.profit)),
                _feed(view, now_ms),
            ]
        )
    lines = grid(rows, right=range(1, 6), gap="  ")
    rest = views[len(shown) :]
    if rest:
        value, profit = _sum(view.value for view in rest), _sum(view.profit for view in rest)
        down = sum(not view.connected for view in rest)
        lines.append(
            Text(f"and {len(rest)} more symbols: value {money(value)}, P/L {signed(profit)}, feeds down: {down}")
        )
    return lines


def _change(view: SymbolView) -> tuple[str, str]:
    if view.price is None or view.previous_price is None:
        return "-", ""
    change = subtract(view.price, view.previous_price)
    return percent(change, view.previous_price), gain_style(change)


def _feed(view: SymbolView, now_ms: int) -> Text:
    if view.last_kline_ms is None:
        return Text("waiting for klines")
    state = Text("up") if view.connected else Text("DOWN", style="bold")
    age_s = (now_ms - view.last_kline_ms) // 1000
    # The klines of a replay are years old, those of a simulated market may be ahead of the clock.
    return state.append(f", {duration(age_s)} ago") if 0 <= age_s < DAY_S else state


def _wallet(snapshot: Snapshot, width: int) -> Text:
    asset = quote_asset(view.symbol for view in snapshot.symbols)
    share = percent(snapshot.profit, snapshot.start_cash)
    profit = signed(snapshot.profit) + (f" ({share})" if share else "")
    line = Text.assemble(
        ("Wallet", "bold"),
        f"  cash {money(snapshot.cash)}  equity {money(snapshot.equity)} {asset}".rstrip(),
        "  P/L ",
        (profit, gain_style(snapshot.profit)),
    )
    start = f" from {money(snapshot.start_cash)}"
    return line.append(start) if line.cell_len + len(start) <= width else line


def _trades(trades: Sequence[Trade], width: int, now_ms: int) -> list[Text]:
    rows = [
        [
            Text(_when(trade.time, now_ms)),
            Text(trade.side.value, style=side_style(trade.side.value)),
            Text(one_line(trade.symbol)),
            Text(quantity(trade.quantity)),
            Text(f"at {price(trade.price)}"),
            Text(f"fee {fee_text(trade)}"),
        ]
        for trade in reversed(trades)
    ]
    lines = grid(rows, right=(3, 4))
    for line, trade in zip(lines, reversed(trades), strict=True):
        line.append(" " + _cut_at_word(one_line(trade.reason), width - line.cell_len - 1))
    return lines


def _refusals(refusals: Sequence[Refusal], now_ms: int) -> list[Text]:
    rows = [
        [
            Text(_when(refusal.event_time, now_ms)),
            Text(one_line(refusal.side), style=side_style(refusal.side)),
            Text(one_line(refusal.symbol)),
            Text(one_line(refusal.name), style="bold"),
            Text(one_line(refusal.detail)),
        ]
        for refusal in reversed(refusals)
    ]
    return grid(rows)


def _notices(notices: Sequence[Notice], now_ms: int) -> list[Text]:
    return [
        Text.assemble(
            f"{_when(notice.time, now_ms)} ",
            (one_line(notice.level), "" if notice.level == "info" else "bold"),
            f" {one_line(notice.source)}: {one_line(notice.text)}",
        )
        for notice in reversed(notices)
    ]


def _actors_title(actors: Sequence[ActorStatus]) -> str:
    states = Counter(actor.state for actor in actors)
    said = ", ".join(f"{count} {state}" for state, count in states.most_common())
    restarts, waiting = sum(actor.restarts for actor in actors), sum(actor.mailbox.total for actor in actors)
    return f"Actors, state and restarts: {said or 'none'}; restarts {restarts}, messages waiting {waiting}"


def _actors(actors: Sequence[ActorStatus], width: int, most: int) -> list[Text]:
    """Return every actor with state and restarts, as many a line as fit, and what is wrong in lines of its own.

    Where that needs more than `most` lines, actors of a kind share one entry.
    """
    lines = _side_by_side([f"{one_line(actor.name)} {actor.state} {actor.restarts}" for actor in actors], width)
    if len(lines) > most:
        kinds: dict[str, list[ActorStatus]] = {}
        for actor in actors:
            kinds.setdefault(actor.kind, []).append(actor)
        lines = _side_by_side([_kind(kind, members) for kind, members in kinds.items()], width)
    wrong = [actor for actor in actors if actor.state in ENDED or actor.last_error or actor.busy_ms >= BUSY_MS]
    wrong.sort(key=lambda actor: (actor.state == "running", -actor.busy_ms, -actor.restarts))
    lines += [_trouble(actor) for actor in wrong[:TROUBLES]]
    if len(wrong) > TROUBLES:
        lines.append(Text(f"and {len(wrong) - TROUBLES} more with errors: see {typed('actors')}"))
    return lines


def _kind(kind: str, members: Sequence[ActorStatus]) -> str:
    running, restarts = sum(actor.state == "running" for actor in members), sum(actor.restarts for actor in members)
    if len(members) == 1:
        return f"{one_line(members[0].name)} {members[0].state} {restarts}"
    return f"{one_line(kind)} {running}/{len(members)} running {restarts}"


def _trouble(actor: ActorStatus) -> Text:
    facts = [actor.state, f"restarts {actor.restarts}", f"waiting {actor.mailbox.total}"]
    facts += [f"busy for {duration(actor.busy_ms // 1000)}"] if actor.busy_ms >= BUSY_MS else []
    facts += [one_line(actor.last_error)] if actor.last_error else []
    return Text.assemble(("! ", "bold red"), (one_line(actor.name), "bold"), ": ", ", ".join(facts))


def _side_by_side(entries: Sequence[str], width: int) -> list[Text]:
    if not entries:
        return []
    longest = max(map(cell_len, entries))
    per_line = max(1, (width + 2) // (longest + 2))
    rows = [entries[at : at + per_line] for at in range(0, len(entries), per_line)]
    return [Text("  ".join(set_cell_size(entry, longest) for entry in row).rstrip()) for row in rows]


def _cut_at_word(text: str, width: int) -> str:
    """Return `text` if it fits in `width` columns, else as many of its words as do, with an ellipsis."""
    if cell_len(text) <= width:
        return text
    whole = set_cell_size(text, max(0, width))
    return f"{whole.rpartition(' ')[0] or whole[:-1]}…"


def _when(time_ms: int, now_ms: int) -> str:
    return utc(time_ms, "%H:%M:%S" if time_ms // DAY_MS == now_ms // DAY_MS else "%m-%d %H:%M:%S")


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    return reduce(add, amounts, ZERO)
