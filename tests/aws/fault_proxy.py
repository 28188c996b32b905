"""An HTTP proxy before an AWS server that makes it fail as AWS does, call by call, and remembers which calls came.

with fault_proxy(dynalite.url) as proxy:
    proxy.fail(throttled(), "BatchWriteItem", times=2)   # the next two batches
    proxy.fail(throttled(), every=2)                     # every second call, until `heal`
    proxy.expire("AKIAOLD")                              # whatever is signed with that key, for ever
"""

import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Reply = tuple[int, bytes]
"""A status and a body."""
Forward = Callable[[bytes], Reply]
"""Hands a request's body, maybe another one, to the server and returns its answer."""
Fault = Callable[["FaultProxy", bytes, Forward], Reply | None]
"""What happens instead of the call; None cuts the connection without an answer."""


def refused(code: str, status: int = 400, message: str = "refused for a test") -> Fault:
    """An error of AWS's, before anything happened."""
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message}).encode()
    return lambda proxy, request, forward: (status, body)


def throttled(code: str = "ProvisionedThroughputExceededException") -> Fault:
    return refused(code)


def expired() -> Fault:
    return refused("ExpiredTokenException", message="The security token included in the request is expired")


def cut_before() -> Fault:
    """The connection ends and nothing happened."""
    return lambda proxy, request, forward: None


def cut_after() -> Fault:
    """The connection ends, and the call was carried out: the client cannot know."""

    def fault(proxy: "FaultProxy", request: bytes, forward: Forward) -> None:
        forward(request)

    return fault


def silence() -> Fault:
    """No answer until the proxy heals, then a cut; nothing happened."""

    def fault(proxy: "FaultProxy", request: bytes, forward: Forward) -> None:
        proxy.healed.wait()

    return fault


def unprocessed(count: int) -> Fault:
    """The last `count` items of a BatchWriteItem are given back unprocessed; of fewer all."""

    def fault(proxy: "FaultProxy", request: bytes, forward: Forward) -> Reply:
        parameters = json.loads(request)
        ((table, requests),) = parameters["RequestItems"].items()
        kept, given_back = requests[:-count], requests[-count:]
        if kept:
            parameters["RequestItems"] = {table: kept}
            status, answer = forward(json.dumps(parameters).encode())
            if status != 200:
                return status, answer
        return 200, json.dumps({"UnprocessedItems": {table: given_back}}).encode()

    return fault


@dataclass
class _Rule:
    fault: Fault
    operation: str | None
    times: int | None
    every: int
    seen: int = 0

    def applies(self, operation: str) -> bool:
        if self.times == 0 or self.operation not in (None, operation):
            return False
        self.seen += 1
        if self.seen % self.every:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class FaultProxy:
    """`calls` are the operations asked for (`PutItem`), in order; `faults` counts those that failed."""

    url: str
    upstream: str
    calls: list[str] = field(default_factory=list)
    faults: int = 0
    healed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._rules: list[_Rule] = []
        self._expired: set[str] = set()
        self._lock = threading.Lock()

    def fail(self, fault: Fault, operation: str | None = None, times: int | None = None, every: int = 1) -> None:
        """Let calls of an operation (or all) fail: the next `times` of them, each `every`-th one."""
        self.healed.clear()
        with self._lock:
            self._rules.append(_Rule(fault, operation, times, every))

    def expire(self, access_key: str) -> None:
        """Refuse calls that are signed with this access key id; `heal` does not help."""
        self._expired.add(access_key)

    def heal(self) -> None:
        """Let all calls pass from now on, but for expired keys."""
        with self._lock:
            self._rules.clear()
        self.healed.set()

    def answer(self, operation: str, access_key: str, request: bytes, forward: Forward) -> Reply | None:
        with self._lock:
            self.calls.append(operation)
            if access_key in self._expired:
                self.faults += 1
                return expired()(self, request, forward)
            rule = next((rule for rule in self._rules if rule.applies(operation)), None)
            self.faults += rule is not None
        return forward(request) if rule is None else rule.fault(self, request, forward)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A proxy before the server at the address `upstream`, which may go away and come back."""
    host = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body leave together

        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            signed = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
            headers: dict[str, Any] = {}

            def forward(body: bytes) -> Reply:
                connection = http.client.HTTPConnection(host, timeout=30)
                try:
                    sent = {name: value for name, value in self.headers.items() if name != "Content-Length"}
                    connection.request("POST", self.path, body, sent)
                    answer = connection.getresponse()
                    headers["Content-Type"] = answer.getheader("Content-Type")
                    return answer.status, answer.read()
                finally:
                    connection.close()

            try:
                reply = proxy.answer(operation, signed[1] if signed else "", request, forward)
            except (OSError, http.client.HTTPException):  # the server behind is away
                reply = None
            if reply is None:
                self.close_connection = True
                return
            status, body = reply
            self.send_response(status)
            self.send_header("Content-Type", headers.get("Content-Type") or "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that gave up is what many a test is about."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy = FaultProxy(f"http://127.0.0.1:{server.server_address[1]}", upstream)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.heal()
        server.shutdown()
        server.server_close()
        thread.join()
