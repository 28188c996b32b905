"""The page of a run: well-formed, self-contained, escaped, and with every trade where it belongs."""

from decimal import Decimal
from xml.etree import ElementTree

import pytest

from bot.domain.order import Side, Trade
from bot.research.plot import MAX_MARKERS, MAX_POINTS, page, write_plot
from bot.research.report import EquityPoint, RunReport, SymbolOutcome
from tests.support.builders import MINUTE_MS, NOON

FEE = Decimal("0.001")


def a_trade(minute, side=Side.BUY, reason="fell 1.20 %") -> Trade:
    return Trade(
        symbol="BTCUSDT",
        side=side,
        time=NOON + minute * MINUTE_MS,
        price=Decimal("100"),
        quantity=Decimal("1"),
        quote_quantity=Decimal("100"),
        commission=Decimal("0.1"),
        commission_asset="USDT",
        close=Decimal("100"),
        order_id=1,
        client_order_id="x",
        mode="backtest",
        bot_id="bot",
        reason=reason,
    )


def a_report(levels=(10_000, 10_100, 9_900), trades=(), symbol="BTCUSDT") -> RunReport:
    curve = tuple(EquityPoint(NOON + i * MINUTE_MS, Decimal(level)) for i, level in enumerate(levels))
    outcome = SymbolOutcome(symbol, "USDT", Decimal(100), Decimal(90), Decimal("0.5"))
    equity = Decimal(levels[-1] if levels else 10_000)
    start = Decimal(10_000)
    return RunReport(len(levels), 0, (outcome,), start, equity, equity, {"CASH": 2}, tuple(trades), curve)


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text.removeprefix("<!doctype html>"))


def classed(tree: ElementTree.Element, tag: str, name: str) -> list[ElementTree.Element]:
    chart = next(svg for svg in tree.iter("svg") if svg.get("role") == "img")
    return [element for element in chart.iter(tag) if element.get("class") == name]


def test_the_page_is_written_whole_and_needs_no_network(tmp_path):
    write_plot(a_report(), tmp_path / "out.html")

    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "prefers-color-scheme: dark" in text
    assert not any(word in text for word in ("http:", "https:", "<script", "<link", "@import", "url("))


def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="missing"):
        write_plot(a_report(), tmp_path / "missing" / "out.html")


def test_curve_start_and_buy_and_hold_lie_where_their_amounts_are():
    tree = parsed(page(a_report((10_000, 10_000, 8_991)), FEE))
    (curve,) = classed(tree, "polyline", "curve")
    (start,), (hold,) = classed(tree, "line", "start"), classed(tree, "line", "hold")
    heights = [float(point.split(",")[1]) for point in curve.get("points").split()]

    assert heights[0] == heights[1] == float(start.get("y1"))
    # Buy-and-hold ended with 10000 * 0.999 * 90 / 100 = 8991.
    assert heights[2] == float(hold.get("y1"))
    assert heights[2] > heights[0]


def test_axes_say_what_they_measure():
    words = [text.text for text in parsed(page(a_report(), FEE)).iter("text")]

    assert "equity (USDT)" in words
    assert "time (UTC)" in words
    assert "10,000" in words
    assert "05-19 12:00" in words


def test_buys_and_sells_differ_in_shape_and_stand_at_their_time():
    trades = [a_trade(0), a_trade(2, Side.SELL), a_trade(2)]
    tree = parsed(page(a_report(trades=trades), FEE))
    buys, sells = classed(tree, "path", "buy"), classed(tree, "path", "sell")

    def tip_and_base(path):
        tip, base = path.get("d").removeprefix("M").split("L")
        return float(tip.split()[1]), float(base.split("H")[0].split()[1])

    assert [len(buys), len(sells)] == [2, 1]
    assert all(tip < base for tip, base in map(tip_and_base, buys))
    assert all(tip > base for tip, base in map(tip_and_base, sells))
    assert float(buys[0].get("d")[1:].split()[0]) == 84.0
    assert "2021-05-19 12:02 SELL 1 BTCUSDT at 100 USDT" in sells[0].find("title").text


def test_text_of_others_is_escaped():
    trades = [a_trade(0, reason='<script>alert("x")</script> & more')]
    text = page(a_report(trades=trades, symbol="<b>USDT"), FEE)

    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text
    assert parsed(text) is not None


def test_figures_show_losses_with_their_sign():
    rows = {
        row.find("th").text: [cell.text for cell in row.findall("td")]
        for row in parsed(page(a_report(), FEE)).iter("tr")
    }

    assert rows["profit or loss"] == ["-100.00", "-1,009.00"]
    assert rows["as a share of the start"] == ["-1.00 %", "-10.09 %"]
    assert rows["refused CASH"] == ["2", None]


def test_a_long_run_is_thinned_without_losing_its_extremes():
    levels = [10_000] * 50_000
    levels[31_313], levels[31_399] = 12_000, 8_000
    trades = [a_trade(i) for i in range(5_000)]
    tree = parsed(page(a_report(levels, trades), FEE))
    (curve,) = classed(tree, "polyline", "curve")
    points = curve.get("points").split()
    heights = [float(point.split(",")[1]) for point in points]

    assert len(points) <= MAX_POINTS
    assert min(heights) < heights[0] < max(heights)
    assert len(classed(tree, "path", "buy")) == MAX_MARKERS
    assert f"{MAX_MARKERS} of 5,000 trades are marked" in [item.text for item in tree.iter("li")]


@pytest.mark.parametrize("levels", [(10_000,), (10_000, 10_000), ("0.00001", "0.00002"), (10_000, 10**15)])
def test_any_curve_can_be_drawn(levels):
    assert classed(parsed(page(a_report(levels), FEE)), "polyline", "curve")


def test_a_run_without_a_curve_still_shows_its_figures():
    text = page(a_report(levels=()), FEE)

    assert "This run kept no equity curve." in text
    assert "profit or loss" in text
