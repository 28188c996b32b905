"""A signal while an order's reply is late: the order ends, its trader stops in order, and all within ten seconds."""

import signal
import time

import pytest

from tests.integration.desk import desk
from tests.integration.processes import told, wait_until
from tests.support.stalls import judged_undisturbed

pytestmark = pytest.mark.slow
LATE_MS = 6_000


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("delay", {"ms": LATE_MS, "path": "/api/v3/order", "method": "POST"}),
        ("order_executed_no_reply", {}),
    ],
)
def test_an_order_in_flight_ends_before_the_process_does(tmp_path, kind, values):
    def scenario(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        # Without the account's stream: nothing but the order's own reply and a question tell of its end.
        with desk(folder, BOT_EXCHANGE__WS_API_URL="") as at:
            with at.running_bot() as bot:
                at.fault(kind, count=1, **values)
                at.signal("BTCUSDT", "BUY")
                (order,) = wait_until(lambda: at.orders("BTCUSDT"), 15, "an order at the exchange")
                began = time.monotonic()
                bot.send(signal.SIGTERM)
                assert bot.ends(10) == 0, bot.said
                took_s = time.monotonic() - began
            assert "left behind" not in bot.said, bot.said
            trades = told("trades", "--data-dir", at.data, cwd=folder)
            assert [trade["client_order_id"] for trade in trades] == [order["clientOrderId"]]
            assert took_s < 9.5

    judged_undisturbed(scenario)
