"""A way to the exchange on which an order can be held up: it has left the bot and has not arrived."""

import http.client
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ORDER_PATH = "/api/v3/order"
LONGEST_S = 50
HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "server", "date"}


class SlowRoad:
    """Passes requests on to `rest_url`, byte for byte, the next new order only when it is let go."""

    def __init__(self, rest_url: str) -> None:
        self.held = ""
        """The client order id of the order that was held up."""
        self.questions = 0
        """How often that order was asked for while it was held."""
        self._target = urlsplit(rest_url).netloc
        self._hold = False
        self._go = threading.Event()
        self._lock = threading.Lock()
        road = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                road._pass_on(self)

            def do_POST(self) -> None:
                road._pass_on(self)

            def do_DELETE(self) -> None:
                road._pass_on(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "SlowRoad":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._server.shutdown()
        self._server.server_close()

    def hold_next_order(self) -> None:
        self._hold = True

    def let_go(self) -> None:
        self._go.set()

    def _pass_on(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        parts = urlsplit(request.path)
        values = parse_qs(parts.query) | parse_qs(body.decode())
        if parts.path == ORDER_PATH:
            self._stop_at_the_gate(request.command, values)
        connection = http.client.HTTPConnection(self._target, timeout=10)
        try:
            connection.request(request.command, request.path, body, dict(request.headers))
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            request.close_connection = True
            return
        finally:
            connection.close()
        with suppress(OSError):  # who asked may be dead
            request.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    request.send_header(name, value)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data)

    def _stop_at_the_gate(self, method: str, values: dict[str, list[str]]) -> None:
        if method == "GET":
            if values.get("origClientOrderId") == [self.held] and not self._go.is_set():
                self.questions += 1
            return
        with self._lock:
            is_held, self._hold = self._hold, False
        if is_held:
            self.held = values["newClientOrderId"][0]
            self._go.wait(LONGEST_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no news here."""
