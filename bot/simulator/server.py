"""Decides how the exchange runs: its thread and loop, its one port, and when each market moves."""

import asyncio
import contextlib
import sqlite3
import threading

from aiohttp import web

from bot.simulator.connections import Connections
from bot.simulator.control import Control
from bot.simulator.errors import ApiError, SimulatorError
from bot.simulator.exchange import Closed, Exchange
from bot.simulator.profiles import Profile
from bot.simulator.rest import HttpRequest, Reply, RestApi, canned
from bot.simulator.settings import Endpoints, SimulatorConfig
from bot.simulator.streams import StreamHub, count_path, is_stream_path
from bot.simulator.user_stream import UserStream
from bot.simulator.ws_api import CONNECT_WEIGHT, WS_API_PATH
from bot.simulator.ws_sessions import WsApiHub
from bot.supervision import Clock, SystemClock

START_WITHIN_S = 10.0
STOP_WITHIN_S = 10.0
FLUSH_EVERY_S = 1.0
SHORTEST_SLEEP_S = 0.001


class SimulatedExchange:
    """A Binance-like exchange on one port of this machine, in a daemon thread of its own."""

    def __init__(self, config: SimulatorConfig, *, clock: Clock | None = None, profile: Profile | None = None) -> None:
        """Nothing happens before `start`. `clock` and `profile` replace the system's time and the named profile."""
        self._config = config
        self._clock = clock or SystemClock()
        self._profile = profile
        self._exchange: Exchange | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: str | None = None
        self._port = 0

    def start(self) -> Endpoints:
        """Bind, begin to serve, and return where. Raises SimulatorError with one clear line."""
        if self._thread is not None:
            raise SimulatorError("the simulated exchange is already running")
        exchange = Exchange(self._config, self._clock, self._profile)
        self._exchange = exchange
        self._ready.clear()
        self._failure = None
        self._thread = threading.Thread(target=self._run, args=(exchange,), name="simulated-exchange", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_WITHIN_S):
            self._failure = f"not ready after {START_WITHIN_S:.0f} s"
        if self._failure is not None:
            self.stop()
            raise SimulatorError(self._failure)
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        address = f"{host}:{self._port}"
        return Endpoints(
            rest_url=f"http://{address}",
            ws_url=f"ws://{address}",
            ws_api_url=f"ws://{address}{WS_API_PATH}",
            api_key=exchange.api_key,
            api_secret=exchange.api_secret,
        )

    def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """Close every connection, flush the books, end the thread; no error if it is not running.

        A thread that has not ended `within_s` seconds is left behind.
        """
        thread, loop, ended = self._thread, self._loop, self._ended
        if thread is None:
            return
        if loop is not None and ended is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
                loop.call_soon_threadsafe(ended.set)
        thread.join(within_s)
        self._thread = self._loop = self._ended = self._exchange = None

    def _run(self, exchange: Exchange) -> None:
        try:
            asyncio.run(self._serve(exchange))
        except OSError as error:
            self._failure = f"cannot listen on {self._config.host}:{self._config.port}: {error.strerror or error}"
        except Exception as error:
            self._failure = f"the exchange could not start: {type(error).__name__}: {error}"
        finally:
            with contextlib.suppress(sqlite3.Error):
                exchange.close()
            self._ready.set()

    async def _serve(self, exchange: Exchange) -> None:
        ended = asyncio.Event()
        connections = Connections(exchange)
        hub, ws_api = StreamHub(exchange, connections), WsApiHub(exchange, connections)
        user_stream = UserStream(exchange, (hub.user_receivers, ws_api.user_receivers))
        door = Door(exchange, hub, ws_api, Control(exchange, connections, hub, user_stream))
        server = web.Server(door.handle, access_log=None)
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.2)
        await runner.setup()
        tasks: list[asyncio.Task[None]] = []
        try:
            site = web.TCPSite(runner, self._config.host, self._config.port)
            await site.start()
            self._port = runner.addresses[0][1]
            tasks.append(asyncio.create_task(connections.keep_alive()))
            if exchange.profile.listen_keys:
                tasks.append(asyncio.create_task(hub.watch_listen_keys()))
            tasks.append(asyncio.create_task(_flush_for_ever(exchange)))
            if not self._config.step:
                tasks += [asyncio.create_task(Pacer(exchange, hub, s, n).run()) for n, s in enumerate(exchange.markets)]
            self._loop, self._ended = asyncio.get_running_loop(), ended
            self._ready.set()
            await ended.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            connections.close_all()
            await asyncio.sleep(0)
            await runner.cleanup()


class Door:
    """Takes every HTTP request and websocket handshake, and hands it to the room that knows the answer."""

    def __init__(self, exchange: Exchange, hub: StreamHub, ws_api: WsApiHub, control: Control) -> None:
        self._exchange = exchange
        self._hub = hub
        self._ws_api = ws_api
        self._rest = RestApi(exchange)
        self._control = control

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. What breaks inside is answered with -1000, as the exchange does."""
        # The raw target, since a signature covers the bytes as sent.
        target = request.raw_path
        path, _, query = target.partition("?")
        if is_stream_path(path) or path == WS_API_PATH:
            return await self._websocket(request, path)
        body = await request.read() if request.can_read_body else b""
        raw = HttpRequest(
            request.method,
            path,
            query.encode("latin-1", "surrogateescape") if query.isascii() else query.encode("utf-8", "surrogateescape"),
            body,
            {name.lower(): value for name, value in request.headers.items()},
            request.remote or "",
        )
        try:
            reply = self._control.respond(raw) if path.startswith("/sim/") else self._rest.respond(raw)
        except sqlite3.Error as error:
            reply = Reply(500, b'{"code":-1000,"msg":"An unknown error occurred while processing the request."}')
            reply.headers["x-sim-error"] = str(error)[:200].replace("\n", " ")
        if reply.status == 418:
            self._ws_api.disconnect(raw.address)
        # At least one turn of the loop: the events of an order leave before its reply.
        await asyncio.sleep(reply.delay_ms / 1000)
        if reply.is_cut:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)
        return web.Response(
            status=reply.status, body=reply.body, headers={**reply.headers, "Content-Type": reply.content_type}
        )

    async def _websocket(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        exchange = self._exchange
        counted = count_path(path)
        exchange.requests[counted] += 1
        given = canned(exchange, path, request.method)
        if given is not None:
            return web.Response(
                status=given.status, body=given.body, headers={**given.headers, "Content-Type": given.content_type}
            )
        slow = exchange.faults.take("delay", path, request.method)
        if slow is not None:
            await asyncio.sleep(slow.ms / 1000)
        try:
            now = exchange.now_ms()
            exchange.request_limits.admit_connection(request.remote or "", now)
            if path == WS_API_PATH:
                exchange.request_limits.admit(request.remote or "", CONNECT_WEIGHT, now)
        except ApiError as error:
            retry_after = {"Retry-After": str(error.retry_after_s or 1)}
            return web.json_response(error.body(), status=error.status, headers=retry_after)
        return await (self._ws_api if path == WS_API_PATH else self._hub).serve(request)


class Pacer:
    """Moves one symbol's market on wall time and publishes what changed. The symbols take turns within a step."""

    def __init__(self, exchange: Exchange, hub: StreamHub, symbol: str, turn: int) -> None:
        self._exchange = exchange
        self._hub = hub
        self._symbol = symbol
        self._step_s = exchange.step_ms / 1000
        self._offset_s = self._step_s * turn / len(exchange.markets)
        self._steps_per_push = max(1, exchange.push_ms // exchange.step_ms)
        self._steps = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        next_step = loop.time() + self._offset_s
        market = self._exchange.markets[self._symbol]
        while True:
            due = market.due()
            wait = next_step - loop.time()
            if due is not None:
                wait = min(wait, self._exchange.wall_seconds_until(due))
            await asyncio.sleep(max(wait, SHORTEST_SLEEP_S))
            if loop.time() < next_step:
                self._publish_closed(self._exchange.close_only(self._symbol))
                continue
            self._step()
            # After a pause of the whole machine it goes on from now and does not catch up.
            next_step = max(next_step + self._step_s, loop.time())

    def _step(self) -> None:
        is_push = self._steps % self._steps_per_push == 0
        self._steps += 1
        exchange, hub = self._exchange, self._hub
        self._publish_closed(exchange.advance(self._symbol, is_push))
        series = exchange.markets[self._symbol].series
        for interval in hub.subscribed(self._symbol):
            if interval in series.intervals and (is_push or interval == "1s"):
                candle = series.view(interval)
                if candle is not None:
                    hub.publish(self._symbol, interval, candle, False, exchange.market_ms())

    def _publish_closed(self, closed: Closed) -> None:
        for interval, candle in closed:
            self._hub.publish(self._symbol, interval, candle, True, self._exchange.market_ms())


async def _flush_for_ever(exchange: Exchange) -> None:
    while True:
        await asyncio.sleep(FLUSH_EVERY_S)
        # A full disk must not stop the market; orders that cannot be booked are answered with -1000 meanwhile.
        with contextlib.suppress(sqlite3.Error):
            exchange.flush()
