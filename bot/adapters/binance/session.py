"""The thin HTTP session under python-binance: connections kept alive, opened ahead of need and shared by threads."""

import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import NamedTuple
from urllib.parse import urlsplit

from bot.adapters.binance.connector import Connector, is_alive
from bot.ports import Leave, at_once

FORM = "application/x-www-form-urlencoded"


class Response(NamedTuple):
    status_code: int
    headers: dict[str, str]  # names in lower case
    content: bytes


class Session:
    """Sends requests and waits for replies, from any number of threads. It follows no redirect and repeats nothing."""

    def __init__(self, connector: Connector, headers: Mapping[str, str]) -> None:
        self._connector = connector
        head = {"Host": connector.host, **headers}
        heads = {"GET": head, "POST": {**head, "Content-Type": FORM}}
        self._heads = {method: "".join(f"{k}: {v}\r\n" for k, v in h.items()) for method, h in heads.items()}
        self._idle: list[tuple[HTTPConnection, float]] = []  # the one used last is at the end

    def get(self, url: str, params: str = "", leave: Leave = at_once, **_: object) -> Response:
        """Ask, with a percent-encoded query. Raises NotSent; OSError and HTTPException after the first byte."""
        target = f"{urlsplit(url).path}?{params}" if params else urlsplit(url).path
        return self._ask("GET", f"GET {target} HTTP/1.1\r\n{self._heads['GET']}\r\n", leave)

    def post(self, url: str, data: str = "", leave: Leave = at_once, **_: object) -> Response:
        """Ask, with a percent-encoded form. Raises NotSent; OSError and HTTPException after the first byte."""
        return self._form("POST", url, data, leave)

    def put(self, url: str, data: str = "", leave: Leave = at_once, **_: object) -> Response:
        """Ask, as `post` does."""
        return self._form("PUT", url, data, leave)

    def warm(self, count: int) -> None:
        """Have `count` connections ready; a dead one is replaced before it is needed. Raises NotSent."""
        for one in self._idle.copy():
            with suppress(ValueError):  # another thread may be using it by now
                self._idle.remove(one)
                if is_alive(*one):
                    self._idle.insert(0, one)
        while len(self._idle) < count:
            self._idle.insert(0, (self._connector.open(), time.monotonic()))

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop()[0].close()

    def _form(self, method: str, url: str, data: str, leave: Leave) -> Response:
        head = f"{method} {urlsplit(url).path} HTTP/1.1\r\n{self._heads['POST']}Content-Length: {len(data)}\r\n\r\n"
        return self._ask(method, head + data, leave)

    def _ask(self, method: str, request: str, leave: Leave) -> Response:
        connection = self._take()
        try:
            leave(lambda: connection.send(request.encode()))  # head and body leave in one piece
            response = HTTPResponse(connection.sock, method=method)
            response.begin()
            reply = Response(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())
        except MemoryError:  # room is made for what the head promises
            connection.close()
            raise HTTPException("a reply that claims to be larger than memory") from None
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._idle.append((connection, time.monotonic()))
        return reply

    def _take(self) -> HTTPConnection:
        with suppress(IndexError):
            while True:
                connection, since = self._idle.pop()
                if is_alive(connection, since):
                    return connection
        return self._connector.open()
