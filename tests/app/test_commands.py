"""What a person is told by a running bot."""

from decimal import Decimal

import pytest

from bot.app.commands import Commands
from bot.app.snapshot import Snapshot, SymbolView
from bot.domain.position import Position
from bot.supervision import ActorSystem
from bot.supervision.testing import ManualClock
from tests.support.builders import an_intent

DOUBT = "an order's fate is unknown yet of ETHUSDT, which is sold once it is known"


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"BTCUSDT": "0", "DOGEUSDT": "0"}, f"nothing is held; {DOUBT}"),
        ({"BTCUSDT": "2", "DOGEUSDT": "0"}, f"selling all of BTCUSDT; {DOUBT}"),
    ],
)
def test_who_has_all_sold_hears_of_orders_of_unknown_fate(held, said):
    views = [SymbolView(s, None, None, Position(Decimal(q)), None, True) for s, q in held.items()]
    doubted = SymbolView("ETHUSDT", None, None, Position(), None, True, unknown=(an_intent(symbol="ETHUSDT"),))
    snapshot, begun = Snapshot("live", 1, (*views, doubted), Decimal(0), Decimal(0)), []
    actors = ActorSystem(ManualClock(0))
    commands = Commands(
        actors, lambda: snapshot, lambda: None, lambda: begun.append(1), dict, reconciler=None, allow_chaos=False
    )
    assert commands.answer({"command": "flatten"})["done"] == said
    assert begun
