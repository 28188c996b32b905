"""Small servers on loopback for what the simulator does not do: garbage, odd statuses, HTML, cut connections."""

import base64
import hashlib
import queue
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class HttpScript:
    """Answers requests by path from a script: `server.on("/api/v3/time", reply(...), ...)`; the last reply stays.

    A reply may also be a function of the request's parameters.
    """

    def __init__(self):
        self.requests = []
        self._replies = {}
        self.released = threading.Event()

    def on(self, path, *replies):
        self._replies[path] = list(replies)
        return self

    def to(self, path):
        """The parameters of the requests that came for a path, query and body together."""
        return [params for seen, params, _ in self.requests if seen == path]

    def next_reply(self, path):
        replies = self._replies.get(path, [(404, {}, "<html>no such page</html>")])
        return replies.pop(0) if len(replies) > 1 else replies[0]


def reply(body="{}", status=200, **headers):
    return (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


CUT = "cut the connection without a reply"
HANG = "answer only when released"


@contextmanager
def http_server():
    script = HttpScript()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body leave together

        def answer(self):
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            params = dict(parse_qsl(parts.query) + parse_qsl(body))
            script.requests.append((parts.path, params, dict(self.headers)))
            answer = script.next_reply(parts.path)
            if callable(answer):
                answer = answer(params)
            if answer == CUT:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if answer == HANG:
                script.released.wait()
                self.close_connection = True
                return
            status, headers, text = answer
            data = text if isinstance(text, bytes) else text.encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer  # noqa: N815 - http.server's names

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that hung up is what some tests are about
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        script.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class WebSocketPeer:
    """The server's end of one websocket, driven by the test."""

    def __init__(self, connection, path):
        self.path = path
        self._connection = connection
        self._file = connection.makefile("rb")

    def send(self, data, opcode=TEXT, fin=True):
        data = data.encode() if isinstance(data, str) else data
        head = bytes([opcode | (0x80 if fin else 0)])
        size = len(data)
        if size < 126:
            head += bytes([size])
        else:
            head += bytes([126]) + struct.pack("!H", size)
        self._connection.sendall(head + data)

    def receive(self):
        """Return (opcode, payload) of the client's next frame; None when it is gone."""
        head = self._file.read(2)
        if len(head) < 2:
            return None
        size = head[1] & 0x7F
        if size == 126:
            size = struct.unpack("!H", self._file.read(2))[0]
        mask = self._file.read(4)
        data = self._file.read(size)
        return head[0] & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(data))

    def cut(self):
        self._connection.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._file.close()
        self._connection.close()


@contextmanager
def websocket_server(status=101):
    """Yield (ws_url, peers): a queue of the connections made. With another status every handshake is refused."""
    listener = socket.create_server(("127.0.0.1", 0))
    peers = queue.Queue()
    made = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(60)
            head = b""
            while b"\r\n\r\n" not in head and (piece := connection.recv(4096)):
                head += piece
            lines = head.decode().split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
            if status != 101:
                connection.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
                connection.close()
                continue
            guid = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(guid.encode()).digest()).decode()
            connection.sendall(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            peer = WebSocketPeer(connection, lines[0].split(" ")[1])
            made.append(peer)
            peers.put(peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}", peers
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for peer in made:
            peer.close()


class Wire:
    """A server of bare sockets. `answer(request)` gives the bytes to send back, None to hang up without any.

    `received` has what each connection brought, one item a piece as it was read; `hang_up` closes them all.
    """

    def __init__(self, answer, context=None):
        self.received = []
        self.answer = answer
        self._context = context
        self._made = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            pieces = []
            self.received.append(pieces)
            thread = threading.Thread(target=self._serve, args=(connection, pieces), daemon=True)
            thread.start()
            self._threads.append(thread)  # started: whoever sees it may join it

    def _serve(self, connection, pieces):
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            self._made.append(connection)
            while piece := connection.recv(65536):
                pieces.append(piece)
                back = self.answer(piece)
                if back is None:
                    break
                connection.sendall(back)
        except OSError:
            pass
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def await_connections(self, count):
        """Wait until so many were accepted: a client's connect may return before."""
        deadline, pause = time.monotonic() + 60, threading.Event()
        while len(self._made) < count or len(self._threads) <= count:
            assert time.monotonic() < deadline, f"{len(self._made)} connections came, not {count}"
            pause.wait(0.005)

    def hang_up(self):
        for connection in self._made:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            while thread.is_alive():  # one that was accepted just now is known a moment later
                self.hang_up()
                thread.join(0.05)


def http_reply(body=b"{}", status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
