"""A store elsewhere, in memory: `ports.History` as far as the archive uses it, with what may go wrong there."""

from bot.ports import ItemsRefused, StoreError
from tests.support.doubles import MemoryStore


class RemoteHistory:
    """What was written, in order, by connections that `connect` makes.

    `trouble` is raised by every call while it is set; `on_write` is called with each write before it takes effect.
    `slots`, if set, is how many items it takes in one write before it raises. `cannot_keep` are refused for good.
    """

    def __init__(self):
        self.store = MemoryStore()
        self.written = []
        self.sizes = []
        self.trouble = None
        self.on_write = lambda entries: None
        self.after_write = lambda: None
        self.cannot_keep = ()
        self.connections = []

    def connect(self):
        if isinstance(self.trouble, StoreError) and type(self.trouble) is StoreError:
            raise self.trouble
        self.connections.append(Connection(self))
        return self.connections[-1]

    @property
    def firsts(self):
        """All that came, each where it came first."""
        return list(dict.fromkeys(self.written))


class Connection:
    def __init__(self, remote):
        self.remote, self.is_closed = remote, False

    def write(self, klines, trades):
        remote, entries = self.remote, [*trades, *klines]
        assert not self.is_closed
        remote.on_write(entries)
        if remote.trouble is not None:
            raise remote.trouble
        kept = [entry for entry in entries if entry not in remote.cannot_keep]
        remote.written += kept
        remote.sizes.append(len(entries))
        remote.store.write([entry for entry in klines if entry in kept], [entry for entry in trades if entry in kept])
        remote.after_write()
        if len(kept) < len(entries):
            raise ItemsRefused("an item of 500 KB is larger than 400 KB", [e for e in entries if e not in kept])

    def close(self):
        self.is_closed = True
