import pytest

from bot.adapters.sqlite import SqliteJournal
from tests.support.pump import Pump


@pytest.fixture
def journal(tmp_path):
    with SqliteJournal(tmp_path / "orders.db") as opened:
        yield opened


@pytest.fixture
def new_pump(journal):
    """Makes real traders and a portfolio over one journal, without threads."""
    return lambda **settings: Pump(journal, **settings)
