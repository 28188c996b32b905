"""Klines through produce, broker, consume and trader, beside a plain confluent-kafka loop on the same broker.

    python -m benchmarks.kafka [--servers 127.0.0.1:9092] [--klines 30000] [--turns 5] [--json]
    python -m benchmarks.kafka --memory 5000000

Without --servers Apache Kafka is started for it. Each end is a process of its own. *plain* makes a dict, json.dumps,
produce; consume, json.loads, compare. *layers* are the bot's publisher and its stream of published klines, with the
rule, without actors; both in turns, since the machine does other work too: the figure is the median of the turns.
*bots* are two whole bots: the first takes made klines, trades and stores, and publishes what is stored; the second
takes them from the topic, trades and stores. What a kline takes there is measured by thread, of a bot without a broker
too. Latency is from a kline's arrival at the first bot to its decision in the second.

An order's path, from kline to order, is measured of two bots side by side, one of which publishes, that get their
klines alternately; and of each alone, in turns, with the CPU of the threads that an order passes.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks import kafka_bots
from benchmarks import kafka_parts as parts
from bot.adapters.kafka.admin import Topics

SPAWN = multiprocessing.get_context("spawn")
MENTIONED_US = 0.3


class End:
    """One process of a measurement: started, told to go, and asked what it found."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=work, args=(*arguments, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def ready(self) -> "End":
        assert self.pipe.recv() == "ready"
        return self

    def go(self) -> None:
        self.pipe.send("go")

    def found(self) -> Any:
        return self.pipe.recv()

    def join(self) -> None:
        self.process.join(60)


def both(count: int, first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[float, Any, Any]:
    """Run two ends beside one another; return klines a second, and what each found."""
    consumer, producer = End(*second).ready(), End(*first).ready()
    began = time.perf_counter()
    consumer.go()
    producer.go()
    taken, given = consumer.found(), producer.found()
    seconds = time.perf_counter() - began
    for end in (consumer, producer):
        end.join()
    return count / seconds, given, taken


def a_prefix(servers: str) -> str:
    """Make the topics of a new prefix and return it."""
    prefix = f"bench{uuid.uuid4().hex[:8]}."
    Topics(parts.settings_of(servers, prefix)).create_missing()
    return prefix


def plain(servers: str, count: int) -> dict[str, float]:
    topic = f"plain{uuid.uuid4().hex[:8]}"
    client = AdminClient({"bootstrap.servers": servers})
    client.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1)])[topic].result(20)
    found = both(count, (parts.plain_producer, servers, topic, count), (parts.plain_consumer, servers, topic, count))
    return _row(count, *found)


def layers(servers: str, count: int) -> dict[str, float]:
    prefix = a_prefix(servers)
    found = both(count, (parts.layer_producer, servers, prefix, count), (parts.layer_consumer, servers, prefix, count))
    return _row(count, *found)


def _row(count: int, rate: float, produce_cpu_s: float, consume_cpu_s: float) -> dict[str, float]:
    us = 1e6 / count
    return {"klines_a_second": rate, "produce_cpu_us": produce_cpu_s * us, "consume_cpu_us": consume_cpu_s * us}


def in_turns(servers: str, count: int, turns: int) -> dict[str, Any]:
    """Return the median of plain and layers over turns, and of the layers' share of plain in each turn."""
    found: dict[str, list[dict[str, float]]] = {"plain": [], "layers": []}
    for turn in range(turns):
        kinds = [("plain", plain), ("layers", layers)]
        for name, measured in kinds if turn % 2 else reversed(kinds):
            found[name].append(measured(servers, count))
    shares = [
        own["klines_a_second"] / other["klines_a_second"]
        for own, other in zip(found["layers"], found["plain"], strict=True)
    ]
    medians = {
        name: {key: round(statistics.median(row[key] for row in rows), 1) for key in rows[0]}
        for name, rows in found.items()
    }
    return {**medians, "of_plain": round(statistics.median(shares), 2), "turns": [round(one, 2) for one in shares]}


def bots(servers: str, folder: Path, count: int, rate: float = 0) -> tuple[float, dict[str, Any], list[int]]:
    """Return klines a second, what a kline took of each bot, and the latencies in ns."""
    prefix = a_prefix(servers)
    first = (kafka_bots.first_bot, servers, prefix, folder / f"{prefix}first", count, rate)
    second = (kafka_bots.second_bot, servers, prefix, folder / f"{prefix}second", count)
    speed, (given, _), (taken, latencies_ns) = both(count, first, second)
    return speed, {"publishing": given, "from a topic": taken}, latencies_ns


def alone(servers: str, folder: Path, count: int) -> tuple[float, dict[str, float]]:
    """A bot that does not publish, on the same made klines: what actors and store take by themselves."""
    end = End(kafka_bots.first_bot, servers, "", folder / "alone", count, 0).ready()
    began = time.perf_counter()
    end.go()
    spent, _ = end.found()
    rate = count / (time.perf_counter() - began)
    end.join()
    return rate, spent


def order_path(servers: str, folder: Path, turns: int) -> dict[str, Any]:
    """Return in us what publishing adds between kline and order: median of the pairs and its 95 % interval."""
    end = End(kafka_bots.order_paths, servers, a_prefix(servers), folder / "orders", turns, 80, 20.0)
    pairs, by_turn, cpu = end.found()
    end.join()
    ours, theirs = (statistics.median(side) / 1000 for side in zip(*pairs, strict=True))
    turn_us = {kind: [statistics.median(turn) / 1000 for turn in turns_ns] for kind, turns_ns in by_turn.items()}
    return {
        "beside": {
            "us": {"without": round(ours, 1), "with": round(theirs, 1)},
            "added_us": _median([(other - one) / 1000 for one, other in pairs]),
            "pairs": len(pairs),
        },
        **{
            name: {
                "us": {kind: round(statistics.median(one), 1) for kind, one in each.items()},
                "added_us": _median([b - a for a, b in zip(each["without"], each["with"], strict=True)]),
                "pairs": turns,
            }
            for name, each in (("alone", turn_us), ("cpu", cpu))
        },
    }


def _median(values: list[float]) -> tuple[float, float, float]:
    """Return a median and its 95 % interval, by order statistics: no distribution is assumed."""
    ordered, count = sorted(values), len(values)
    reach = 1.96 * count**0.5 / 2
    low, high = max(0, int(count / 2 - reach)), min(count - 1, int(count / 2 + reach))
    return round(statistics.median(ordered), 1), round(ordered[low], 1), round(ordered[high], 1)


def memory(servers: str, folder: Path, count: int) -> dict[str, Any]:
    prefix = a_prefix(servers)
    consumer = End(parts.endless_consumer, servers, prefix, count).ready()
    producer = End(parts.endless_producer, servers, prefix, folder / "memory", count).ready()
    began = time.perf_counter()
    consumer.go()
    producer.go()
    found: dict[str, list[float]] = {"produce_mb": [], "consume_mb": []}
    for _ in range(20):
        for name, end in (("produce_mb", producer), ("consume_mb", consumer)):
            found[name].append(round(end.found(), 1))
        print(
            f"  {time.perf_counter() - began:6.0f} s  {found['produce_mb'][-1]} {found['consume_mb'][-1]}", flush=True
        )
    cpu = {name: end.found() / count * 1e6 for name, end in (("produce", producer), ("consume", consumer))}
    seconds = time.perf_counter() - began
    return {**found, "klines_a_second": round(count / seconds), "cpu_us": cpu}


@contextmanager
def a_broker(servers: str | None, folder: Path) -> Iterator[tuple[str, str]]:
    if servers is not None:
        yield servers, f"the broker at {servers}"
        return
    from tests.support.kafka.brokers import ApacheKafka

    broker = ApacheKafka(folder / "broker")
    try:
        yield broker.servers, broker.title
    finally:
        broker.stop()


def spread_ms(latencies_ns: list[int]) -> dict[str, float]:
    ordered = sorted(latencies_ns)
    return {
        "median_ms": round(statistics.median(ordered) / 1e6, 2),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] / 1e6, 2),
        "of": len(ordered),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers")
    parser.add_argument("--klines", type=int, default=30_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--memory", type=int, metavar="KLINES", help="only memory, over so many")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bulkhead-kafka-") as scratch:
        folder = Path(scratch)
        with a_broker(arguments.servers, folder) as (servers, title):
            found["broker"] = title
            if arguments.memory:
                found["memory"] = memory(servers, folder, arguments.memory)
            else:
                measure(found, servers, folder, arguments.klines, arguments.turns)
    print(json.dumps(found) if arguments.json else "\n".join(lines(found)))


def measure(found: dict[str, Any], servers: str, folder: Path, count: int, turns: int) -> None:
    plain(servers, 5_000)  # whatever is made at first use
    found["layers"] = in_turns(servers, count, turns)
    found["bots"], spent, _ = bots(servers, folder, count)
    found["alone"], spent["alone"] = alone(servers, folder, count)
    found["spent_us"] = spent
    found["latency"] = {}
    for rate in (20, 200):
        _, _, latencies_ns = bots(servers, folder, rate * 8, rate)
        found["latency"][str(rate)] = spread_ms(latencies_ns[rate:])
    found["order_path"] = order_path(servers, folder, turns)


def lines(found: dict[str, Any]) -> Iterator[str]:
    yield found["broker"]
    if "memory" in found:
        it = found["memory"]
        yield f"memory, MB: publisher {it['produce_mb']}, stream {it['consume_mb']}"
        yield f"{it['klines_a_second']:,} klines/s; CPU a kline, us: {it['cpu_us']}"
        return
    it = found["layers"]
    for name in ("plain", "layers"):
        one = it[name]
        yield (
            f"{name:7} {one['klines_a_second']:9,.0f} klines/s; CPU a kline: produce {one['produce_cpu_us']} us, "
            f"consume {one['consume_cpu_us']} us"
        )
    yield f"layers: {it['of_plain']:.0%} of plain (median of turns {it['turns']})"
    share = found["bots"] / it["plain"]["klines_a_second"]
    yield f"bots    {found['bots']:9,.0f} klines/s, {share:.0%} of plain; one without a broker {found['alone']:,.0f}"
    yield from spent_lines(found["spent_us"])
    for rate, it in found["latency"].items():
        yield f"bot to bot at {rate} klines/s: median {it['median_ms']} ms, p99 {it['p99_ms']} ms of {it['of']}"
    titles = {
        "beside": "kline to order, both side by side",
        "alone": "kline to order, each alone in turns",
        "cpu": "CPU a kline of the threads on that path",
    }
    for name, title in titles.items():
        it = found["order_path"][name]
        added, low, high = it["added_us"]
        yield (
            f"{title}: {it['us']['without']} us without publishing, {it['us']['with']} us with it; it adds {added} us "
            f"(95 % interval {low} to {high}, {it['pairs']} pairs)"
        )


def spent_lines(spent: dict[str, dict[str, float]]) -> Iterator[str]:
    """What a kline takes of each thread in us of CPU; behind a colon, what of that a stage takes."""
    kinds = ("alone", "publishing", "from a topic")
    yield f"{'CPU a kline, us':38}" + "".join(f"{kind:>14}" for kind in kinds)
    names = {name for kind in kinds for name, us in spent[kind].items() if us >= MENTIONED_US}
    for name in sorted(names):
        shown = f"  of it{name.partition(':')[2]}" if ":" in name else name
        yield f"{shown:38}" + "".join(f"{spent[kind].get(name, 0):14.1f}" for kind in kinds)
    sums = (sum(us for name, us in spent[kind].items() if ":" not in name) for kind in kinds)
    yield f"{'all':38}" + "".join(f"{one:14.1f}" for one in sums)


if __name__ == "__main__":
    main()
