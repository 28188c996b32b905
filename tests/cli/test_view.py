"""The live view and the summary: what a person reads in them, at which width, and that the terminal is given back."""

import io
import threading
from decimal import Decimal

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console

from bot.actors.monitor import Refusal
from bot.app.snapshot import Snapshot, SymbolView
from bot.cli.invocation import typed
from bot.cli.view import LiveView, render, summary
from bot.domain.order import Side, Trade
from bot.domain.position import Position
from bot.messages import Notice
from bot.supervision import ActorStatus, Depth

NOW = 1_621_425_600_000  # 2021-05-19 12:00:00 UTC, ms
ENTER_SCREEN, LEAVE_SCREEN, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


def a_view(symbol="BTCUSDT", price="29123.45", previous="29476.12", held="0.03", net="-1000", connected=True):
    known = price is not None
    return SymbolView(
        symbol=symbol,
        price=Decimal(price) if known else None,
        previous_price=Decimal(previous) if known else None,
        position=Position(Decimal(held), Decimal(1), Decimal(net)),
        last_kline_ms=NOW - 2_000 if known else None,
        connected=connected,
        messages=140,
    )


def a_trade(reason="fell 1.20 % from 29476.12 to 29123.45", side=Side.BUY, time=NOW - 5_000, fee="0.00003422"):
    return Trade(
        symbol="BTCUSDT",
        side=side,
        time=time,
        price=Decimal("29123.45"),
        quantity=Decimal("0.03421"),
        quote_quantity=Decimal("996.3132245"),
        commission=Decimal(fee),
        commission_asset="BTC",
        close=Decimal("29123.45"),
        order_id=1,
        client_order_id="x",
        mode="demo",
        bot_id="bot",
        reason=reason,
    )


def an_actor(name, state="running", restarts=0, waiting=0, error="", busy_ms=0):
    kind = name.partition("/")[0]
    return ActorStatus(name, kind, state, 1, restarts, 83_000, Depth(stream=waiting), error, busy_ms, 5, 0)


def a_snapshot(symbols=("BTCUSDT", "ETHUSDT", "DOGEUSDT"), **changes) -> Snapshot:
    names = [f"{kind}/{symbol}" for kind in ("feed", "trader") for symbol in symbols]
    names += ["bridge", "portfolio", "persistence", "monitor", "supervisor"]
    values = {
        "mode": "demo",
        "pid": 1,
        "symbols": tuple(a_view(symbol) for symbol in symbols),
        "cash": Decimal("7000"),
        "start_cash": Decimal("10000"),
        "actors": tuple(an_actor(name) for name in names),
        "trades": (a_trade(),),
        "trade_count": 1,
    }
    return Snapshot(**(values | changes))


def lines_of(snapshot, width=80, height=24) -> list[str]:
    return render(snapshot, width, NOW, height).plain.split("\n")


def test_demo_says_that_the_market_is_simulated_and_the_money_is_paper():
    title = lines_of(a_snapshot())[0]

    assert "DEMO" in title
    assert "MARKET IS SIMULATED" in title
    assert "MONEY IS PAPER" in title


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("paper", "the market is real, the MONEY IS PAPER"),
        ("testnet", "TEST MONEY"),
        ("live", "REAL ORDERS, REAL MONEY"),
        ("replay", "the MARKET IS HISTORY"),
    ],
)
def test_every_mode_says_whose_market_and_money_it_is(mode, said):
    assert said in lines_of(a_snapshot(mode=mode))[0]


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10), (200, 60)])
def test_a_frame_fits_the_terminal(width, height, count):
    trouble = an_actor("feed/BTCUSDT", "quarantined", 5, 14, "ConnectionError: " + "no route " * 30)
    snapshot = a_snapshot(
        symbols=tuple(f"COIN{i}USDT" for i in range(count)),
        trades=tuple(a_trade("the reason is a long story " * 9) for _ in range(50)),
        refusals=tuple(Refusal("BTCUSDT", "BUY", "CASH", "detail " * 40, NOW) for _ in range(50)),
        notices=tuple(Notice("feed/BTCUSDT", "warning", "text " * 40, NOW) for _ in range(50)),
    )
    snapshot = msgspec.structs.replace(snapshot, actors=(*snapshot.actors, trouble))

    lines = lines_of(snapshot, width, height)

    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert "Ctrl-C" in lines[-1]


def test_a_halt_stands_in_the_title():
    assert "HALTED" in lines_of(a_snapshot(halted="by hand"))[0]
    assert "STOPPED BTCUSDT" in lines_of(a_snapshot(stopped=(("BTCUSDT", "coins are missing"),)))[0]
    assert "HALTED" not in lines_of(a_snapshot())[0]


def test_a_loss_and_a_gain_have_their_sign_in_the_text():
    losing = a_snapshot(symbols=("BTCUSDT",))
    winning = msgspec.structs.replace(losing, cash=Decimal("10000"))

    lines = lines_of(losing)

    assert "-1.20 %" in lines[1 + 1]
    assert "-126.30" in lines[1 + 1]
    assert "P/L -2,126.30 (-21.26 %)" in "\n".join(lines)
    assert "P/L +873.70 (+8.74 %)" in "\n".join(lines_of(winning))


def test_a_trade_shows_time_side_size_price_fee_and_move():
    trade = next(line for line in lines_of(a_snapshot(), width=120) if "at 29,123.45" in line)

    assert trade.split() == (
        [
            "11:59:55",
            "BUY",
            "BTCUSDT",
            "0.03421",
            "at",
            "29,123.45",
            "fee",
            "0.00003422",
            "BTC",
            "fell",
            "1.20",
            "%",
            "from",
            "29476.12",
            "to",
            "29123.45",
        ]
    )


def test_a_trade_of_another_day_shows_its_date():
    assert "05-18 12:00:00 BUY" in "\n".join(lines_of(a_snapshot(trades=(a_trade(time=NOW - 86_400_000),))))


def test_at_80_columns_the_move_of_a_trade_can_still_be_read():
    assert any(line.endswith("fell 1.20 % from…") for line in lines_of(a_snapshot()))


def test_the_newest_trades_come_first_and_are_kept_when_room_is_short():
    trades = tuple(a_trade(f"move {i}") for i in range(50))

    shown = [line for line in lines_of(a_snapshot(trades=trades, trade_count=1234)) if "move" in line]

    assert shown[0].endswith("move 49")
    assert "Trades 1,234 " in "\n".join(lines_of(a_snapshot(trades=trades, trade_count=1234)))


def test_refusals_show_name_detail_and_counts():
    refusal = Refusal("ETHUSDT", "BUY", "CASH", "free cash 912.33 is too small", NOW)

    text = "\n".join(lines_of(a_snapshot(refusals=(refusal,), skipped=(("CASH", 7), ("LOT_SIZE", 2)))))

    assert "Refusals 9 (CASH 7, LOT_SIZE 2)" in text
    assert "BUY ETHUSDT CASH free cash 912.33 is too small" in text


def test_markup_and_control_characters_of_others_are_shown_not_obeyed():
    snapshot = a_snapshot(
        trades=(a_trade("[red]up[/] 1"),),
        refusals=(Refusal("BTCUSDT", "BUY", "CASH", "[bold]detail[/bold]\x1b[2J", NOW),),
        actors=(an_actor("feed/BTCUSDT", error="[link=x]boom\nsecond line"),),
    )
    console = Console(width=120, file=io.StringIO(), force_terminal=True, no_color=True)
    console.print(render(snapshot, 120, NOW))
    text = console.file.getvalue()

    assert "[red]up[/] 1" in text
    assert "[2J" in text
    assert "\x1b[2J" not in text
    assert "[link=x]boom second line" in text


def test_without_colour_no_colour_is_sent():
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system="truecolor", no_color=True)
    console.print(render(a_snapshot(), 80, NOW))

    assert not any(f"\x1b[3{colour}" in console.file.getvalue() for colour in range(10) if colour != 0)


def test_before_the_first_kline_it_says_what_it_waits_for():
    snapshot = a_snapshot(symbols=("BTCUSDT",), trades=(), trade_count=0)
    lines = lines_of(msgspec.structs.replace(snapshot, symbols=(a_view(price=None, held="0", net="0"),)))

    assert "waiting for klines" in lines[2]
    assert lines.count("none yet") == 2


def test_a_feed_that_is_down_says_so():
    snapshot = msgspec.structs.replace(a_snapshot(), symbols=(a_view(), a_view("ETHUSDT", connected=False)))

    lines = lines_of(snapshot)

    assert lines[2].endswith("up, 2 s ago")
    assert lines[3].endswith("DOWN, 2 s ago")


def test_every_actor_shows_state_and_restarts():
    snapshot = a_snapshot(symbols=("BTCUSDT",), actors=(an_actor("bridge"), an_actor("portfolio", "restarting", 3)))

    text = "\n".join(lines_of(snapshot))

    assert "1 running, 1 restarting; restarts 3" in text
    assert "bridge running 0" in text
    assert "portfolio restarting 3" in text


def test_what_is_wrong_with_an_actor_has_a_line():
    hung = an_actor("trader/BTCUSDT", waiting=14, busy_ms=12_000)
    failed = an_actor("feed/BTCUSDT", "quarantined", 5, error="ValueError: boom")

    text = "\n".join(lines_of(a_snapshot(actors=(an_actor("bridge"), hung, failed)), width=120))

    assert "! feed/BTCUSDT: quarantined, restarts 5, waiting 0, ValueError: boom" in text
    assert "! trader/BTCUSDT: running, restarts 0, waiting 14, busy for 12 s" in text
    assert "! bridge" not in text


def test_many_symbols_are_summed_up_with_nothing_lost():
    symbols = tuple(f"COIN{i}USDT" for i in range(40))
    last = symbols[-1]
    views = tuple(a_view(s, price="2", previous="2", held="1", net="-1", connected=s != last) for s in symbols)
    snapshot = msgspec.structs.replace(a_snapshot(symbols=symbols), symbols=views)

    text = "\n".join(lines_of(snapshot))

    assert "COIN4USDT" in text
    assert "COIN5USDT" not in text
    assert "and 35 more symbols: value 70.00, P/L +35.00, feeds down: 1" in text
    assert "feed 40/40 running 0" in text
    assert "trader 40/40 running 0" in text


def test_the_live_view_takes_the_screen_and_gives_it_back():
    file, until = io.StringIO(), threading.Event()

    def source() -> Snapshot:
        until.set()
        return a_snapshot()

    with LiveView(Console(file=file, force_terminal=True, width=80, height=24, _environ={})) as view:
        view.run(source, until)

    text = file.getvalue()
    assert ENTER_SCREEN in text
    assert "MARKET IS SIMULATED" in text
    assert text.rindex(LEAVE_SCREEN) > text.index("MARKET IS SIMULATED")
    assert SHOW_CURSOR in text
    assert text.endswith("Stopping in order; Ctrl-C once more ends at once.\n")


def test_the_terminal_is_given_back_when_a_snapshot_fails():
    file = io.StringIO()

    def source() -> Snapshot:
        raise RuntimeError("no snapshot")

    console = Console(file=file, force_terminal=True, width=80, height=24, _environ={})
    with pytest.raises(RuntimeError, match="no snapshot"), LiveView(console) as view:
        view.run(source, threading.Event())

    assert LEAVE_SCREEN in file.getvalue()
    assert SHOW_CURSOR in file.getvalue()


def test_a_terminal_of_another_encoding_gets_what_it_can_show():
    raw, until = io.BytesIO(), threading.Event()
    file = io.TextIOWrapper(raw, encoding="ascii")

    def source() -> Snapshot:
        until.set()
        return a_snapshot(trades=(a_trade("größer als vorher"),))

    with LiveView(Console(file=file, force_terminal=True, width=80, height=24, _environ={})) as view:
        view.run(source, until)
    file.flush()

    assert b"gr??er" in raw.getvalue()


def test_the_summary_says_what_was_done_and_where_it_is(tmp_path):
    snapshot = a_snapshot(
        skipped=(("CASH", 2), ("LOT_SIZE", 1)),
        actors=(an_actor("bridge", restarts=2), an_actor("portfolio")),
        trade_count=14,
    )

    text = summary(snapshot, 83.4, tmp_path / "my data")

    assert text.startswith("Bulkhead demo ran for 1 min 23 s: the MARKET IS SIMULATED, the MONEY IS PAPER.")
    facts = dict(line.strip().split("  ", 1) for line in text.splitlines()[1:])
    facts = {name: said.strip() for name, said in facts.items()}
    assert facts["messages"] == "420 (BTCUSDT 140, ETHUSDT 140, DOGEUSDT 140)"
    assert facts["trades"] == "14"
    assert facts["refusals"] == "3 (CASH 2, LOT_SIZE 1)"
    assert facts["equity"] == "9,621.11 USDT, -378.89 (-3.79 %) from 10,000.00"
    assert facts["restarts"] == "2 (bridge 2)"
    assert facts["stored in"] == str(tmp_path / "my data")
    assert facts["see it again"] == typed("trades", data_dir=tmp_path / "my data")


def test_the_summary_of_a_run_that_saw_nothing_is_plain_zeros():
    text = summary(Snapshot("paper", 1, (a_view(price=None, held="0", net="0"),), Decimal(0), Decimal(0)), 0.2)

    assert "ran for 0 s" in text
    assert "0.00 USDT, 0.00 from 0.00" in text
    assert "stored in" not in text
