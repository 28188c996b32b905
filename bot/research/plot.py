"""A run's equity curve and trades as one HTML page that needs nothing else: inline SVG, no script, no network."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html import escape
from pathlib import Path

from bot.domain.money import ROUNDING, multiply, plain, subtract
from bot.domain.order import Side, Trade
from bot.research.report import EquityPoint, RunReport

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 84, 40, 16, 56
MAX_POINTS = 2_000
MAX_MARKERS = 600

_STEPS_S = (60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000)
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1f24; --soft: #5d6570; --line: #d9dde3;
  --curve: #1f5fbf; --buy: #0a7a3d; --sell: #b3261e; --hold: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e9ee; --soft: #9aa3af; --line: #333a43;
  --curve: #7fb0ff; --buy: #4cc38a; --sell: #ff8a80; --hold: #e0b050; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  max-width: 980px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.25rem; margin: 0; } p { margin: .25rem 0 1rem; color: var(--soft); }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 12px; } .grid { stroke: var(--line); }
.curve { fill: none; stroke: var(--curve); stroke-width: 1.6; stroke-linejoin: round; }
.start { stroke: var(--soft); stroke-dasharray: 2 4; } .hold { stroke: var(--hold); stroke-dasharray: 8 4; }
.buy { fill: var(--buy); } .sell { fill: var(--sell); } .buy, .sell { stroke: var(--paper); stroke-width: .7; }
svg text.hold { fill: var(--hold); stroke: none; } ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap;
  gap: .25rem 1.5rem; color: var(--soft); } ul svg { display: inline; width: 24px; height: 12px; margin-right: .4rem; }
table { border-collapse: collapse; margin-top: 1rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem 2rem .2rem 0; border-bottom: 1px solid var(--line); font-weight: normal; }
td, thead th { text-align: right; } thead th, th { color: var(--soft); }
"""


def write_plot(report: RunReport, path: Path, fee: Decimal = Decimal("0.001")) -> None:
    """Draw `report` into the file `path`; `fee` (a fraction) is what buy-and-hold pays once.

    Raises OSError where the file cannot be written.
    """
    path.write_text(page(report, fee), encoding="utf-8")


def page(report: RunReport, fee: Decimal) -> str:
    """Return the page: curve and trades over time (UTC), buy-and-hold's final level, and a table of figures."""
    symbols = escape(", ".join(outcome.symbol for outcome in report.symbols))
    asset = escape(report.symbols[0].quote_asset)
    held = report.buy_and_hold(fee)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{symbols}: equity of a run over history</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{symbols}: equity in {asset}</h1>
<p>{_span(report)}{report.bars:,} messages, {len(report.trades):,} trades. Times are UTC.</p>
{_chart(report, held, asset)}
{_figures(report, held, fee)}
</body>
</html>
"""


def _chart(report: RunReport, held: Decimal, asset: str) -> str:
    if not report.curve:
        return "<p>This run kept no equity curve.</p>"
    points = _thinned(report.curve)
    first, last = points[0].time, max(points[-1].time, points[0].time + 1)
    levels = [float(point.equity) for point in points] + [float(report.start_cash), float(held)]
    ticks = _ticks(min(levels), max(levels))
    low, high = ticks[0], ticks[-1]

    def x(time: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (min(max(time, first), last) - first) / (last - first)

    def y(level: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (level - low) / (high - low)

    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0])))
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Equity over time in {asset}">']
    for tick in ticks:
        parts.append(_line("grid", LEFT, y(tick), WIDTH - RIGHT, y(tick)))
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,.{decimals}f}</text>')
    for time, label in _dates(first, last):
        parts.append(_line("grid", x(time), HEIGHT - BOTTOM, x(time), HEIGHT - BOTTOM + 5))
        parts.append(f'<text x="{x(time):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{label}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">equity ({asset})</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">time (UTC)</text>')
    for name, level in (("start", float(report.start_cash)), ("hold", float(held))):
        parts.append(_line(name, LEFT, y(level), WIDTH - RIGHT, y(level)))
    path = " ".join(f"{x(point.time):.1f},{y(float(point.equity)):.1f}" for point in points)
    parts.append(f'<polyline class="curve" points="{path}"/>')
    times = [point.time for point in points]
    for trade in _spread(report.trades, MAX_MARKERS):
        at = max(0, bisect_right(times, trade.time) - 1)
        parts.append(_marker(trade, x(trade.time), y(float(points[at].equity)), asset))
    return "\n".join([*parts, "</svg>", _legend(len(report.trades))])


def _marker(trade: Trade, x: float, y: float, asset: str) -> str:
    kind = "buy" if trade.side is Side.BUY else "sell"
    said = f"{_utc(trade.time)} {trade.side.value} {plain(trade.quantity)} {trade.symbol} at {plain(trade.price)} "
    shape = _triangle(kind, x, y)
    return f'<path class="{kind}" d="{shape}"><title>{escape(said)}{asset}; {escape(trade.reason)}</title></path>'


def _triangle(kind: str, x: float, y: float) -> str:
    # BUY points up from below the curve, SELL points down from above it: the shape says it without the colour.
    tip, base = (y + 2, y + 11) if kind == "buy" else (y - 2, y - 11)
    return f"M{x:.1f} {tip:.1f}L{x - 5:.1f} {base:.1f}H{x + 5:.1f}Z"


def _legend(trades: int) -> str:
    box = '<svg viewBox="0 0 24 12" aria-hidden="true">'
    entries = [
        ('<polyline class="curve" points="0,9 8,3 16,8 24,2"/>', "equity"),
        (_line("start", 0, 6, 24, 6), "what the run began with"),
        (_line("hold", 0, 6, 24, 6), "what buy-and-hold ended with"),
        (f'<path class="buy" d="{_triangle("buy", 12, 0)}"/>', "BUY"),
        (f'<path class="sell" d="{_triangle("sell", 12, 12)}"/>', "SELL"),
    ]
    items = "".join(f"<li>{box}{drawing}</svg>{said}</li>" for drawing, said in entries)
    thinned = f"<li>{MAX_MARKERS} of {trades:,} trades are marked</li>" if trades > MAX_MARKERS else ""
    return f"<ul>{items}{thinned}</ul>"


def _figures(report: RunReport, held: Decimal, fee: Decimal) -> str:
    start = report.start_cash
    rows = [("start", _money(start), _money(start)), ("equity at the end", _money(report.equity), _money(held))]
    ours, theirs = subtract(report.equity, start), subtract(held, start)
    rows.append(("profit or loss", _signed(ours), _signed(theirs)))
    rows.append(("as a share of the start", _share(ours, start), _share(theirs, start)))
    rows.append(("fees", _money(report.commissions_in_quote()), _money(multiply(start, fee))))
    rows.append(("trades", f"{len(report.trades):,}", ""))
    rows += [(f"refused {name}", f"{count:,}", "") for name, count in sorted(report.skipped.items())]
    rows += [(f"{one.symbol} held at the end", f"{Decimal(plain(one.position)):,f}", "") for one in report.symbols]
    body = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(rule)}</td><td>{escape(hold)}</td></tr>'
        for name, rule, hold in rows
    )
    head = '<thead><tr><th></th><th scope="col">the rule</th><th scope="col">buy-and-hold</th></tr></thead>'
    return f"<table>{head}<tbody>\n{body}\n</tbody></table>"


def _thinned(curve: Sequence[EquityPoint]) -> Sequence[EquityPoint]:
    """Return at most about MAX_POINTS points, of every stretch the first, lowest, highest and last."""
    if len(curve) <= MAX_POINTS:
        return curve
    stretch = math.ceil(len(curve) / (MAX_POINTS // 4))
    kept: list[EquityPoint] = []
    for at in range(0, len(curve), stretch):
        part = curve[at : at + stretch]
        chosen = {0, len(part) - 1}
        chosen.add(min(range(len(part)), key=lambda i: part[i].equity))
        chosen.add(max(range(len(part)), key=lambda i: part[i].equity))
        kept += [part[i] for i in sorted(chosen)]
    return kept


def _spread(trades: Sequence[Trade], most: int) -> Iterable[Trade]:
    return trades if len(trades) <= most else (trades[i * len(trades) // most] for i in range(most))


def _ticks(low: float, high: float) -> list[float]:
    """Return four to about eight round levels that hold `low` and `high` between them."""
    span = (high - low) or max(abs(high), 1.0) / 100
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= span / 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def _dates(first: int, last: int) -> list[tuple[int, str]]:
    """Return times (ms) and labels of at most about eight round moments between two times."""
    step = next((s for s in _STEPS_S if (last - first) / 1000 / s <= 8), 31_536_000) * 1000
    label = "%Y-%m-%d" if step >= 86_400_000 else "%m-%d %H:%M"
    return [(time, _utc(time, label)) for time in range(-(-first // step) * step, last + 1, step)]


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _span(report: RunReport) -> str:
    return f"{_utc(report.curve[0].time)} to {_utc(report.curve[-1].time)}, " if report.curve else ""


def _utc(time_ms: int, pattern: str = "%Y-%m-%d %H:%M") -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime(pattern)


def _money(amount: Decimal) -> str:
    return f"{amount:z,.2f}"


def _signed(amount: Decimal) -> str:
    return f"+{_money(amount)}" if amount > 0 else _money(amount)


def _share(part: Decimal, whole: Decimal) -> str:
    return f"{_signed(ROUNDING.divide(multiply(part, Decimal(100)), whole))} %"
