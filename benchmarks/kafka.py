"""Klines through produce, broker, consume and trader, beside a plain confluent-kafka loop on the same broker.

    python -m benchmarks.kafka [--servers 127.0.0.1:9092] [--klines 60000] [--seconds 10] [--json]
    python -m benchmarks.kafka --memory 5000000

Without --servers Apache Kafka is started for it. Each end is a process of its own. *plain* makes a dict, json.dumps,
produce; consume, json.loads, compare. *layers* are the bot's publisher and its stream of published klines, with the
rule, without actors. *bots* are two whole bots: the first takes made klines, trades and stores, and publishes what is
stored; the second takes them from the topic, trades and stores. The first one alone, without a broker, is measured too.
Latency is from a kline's arrival at the first bot to its decision in the second. The order's path is measured with and
without publishing, in turns.
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

from benchmarks import kafka_parts as parts
from bot.adapters.kafka.admin import Topics

SPAWN = multiprocessing.get_context("spawn")


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


def both(servers: str, count: int, first: tuple[Any, ...], second: tuple[Any, ...]) -> dict[str, Any]:
    """Run two ends beside one another; return klines a second, CPU a kline in us of each, and what the second found."""
    consumer, producer = End(*second).ready(), End(*first).ready()
    began = time.perf_counter()
    consumer.go()
    producer.go()
    found, cpu = consumer.found(), producer.found()
    seconds = time.perf_counter() - began
    for end in (consumer, producer):
        end.join()
    own = found[0] if isinstance(found, tuple) else found
    return {
        "klines_a_second": round(count / seconds),
        "produce_cpu_us": round(cpu / count * 1e6, 1),
        "consume_cpu_us": round(own / count * 1e6, 1),
        "latencies_ns": found[1] if isinstance(found, tuple) else [],
    }


def a_prefix(servers: str) -> str:
    """Make the topics of a new prefix and return it."""
    prefix = f"bench{uuid.uuid4().hex[:8]}."
    Topics(parts.settings_of(servers, prefix)).create_missing()
    return prefix


def plain(servers: str, count: int) -> dict[str, Any]:
    topic = f"plain{uuid.uuid4().hex[:8]}"
    client = AdminClient({"bootstrap.servers": servers})
    client.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1)])[topic].result(20)
    return both(
        servers, count, (parts.plain_producer, servers, topic, count), (parts.plain_consumer, servers, topic, count)
    )


def layers(servers: str, count: int) -> dict[str, Any]:
    prefix = a_prefix(servers)
    return both(
        servers, count, (parts.layer_producer, servers, prefix, count), (parts.layer_consumer, servers, prefix, count)
    )


def bots(servers: str, folder: Path, count: int, rate: float = 0) -> dict[str, Any]:
    prefix = a_prefix(servers)
    name = f"{count}at{rate:g}"
    first = (parts.first_bot, servers, prefix, folder / f"first{name}", count, rate)
    return both(servers, count, first, (parts.second_bot, servers, prefix, folder / f"second{name}", count))


def alone(servers: str, folder: Path, count: int) -> dict[str, Any]:
    """A bot that does not publish, on the same made klines: what actors and store take by themselves."""
    end = End(parts.first_bot, servers, "", folder / "alone", count, 0).ready()
    began = time.perf_counter()
    end.go()
    cpu = end.found()
    rate = count / (time.perf_counter() - began)
    end.join()
    return {"klines_a_second": round(rate), "cpu_us": round(cpu / count * 1e6, 1)}


def order_path(servers: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Return medians of kline to order in us; what publishing adds is the median over pairs of turns."""
    end = End(parts.order_paths, servers, a_prefix(servers), folder / "orders", seconds, 60.0)
    results = end.found()
    end.join()
    without, beside = ([statistics.median(turn) / 1000 for turn in results[kind]] for kind in ("without", "with"))
    added = sorted(more - less for less, more in zip(without, beside, strict=True))
    low, _, high = statistics.quantiles(added, n=4)
    return {
        "without_us": round(statistics.median(without), 1),
        "with_us": round(statistics.median(beside), 1),
        "added_us": round(statistics.median(added), 1),
        "quartiles_us": [round(low, 1), round(high, 1)],
        "orders": sum(map(len, results["with"])),
    }


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
    parser.add_argument("--klines", type=int, default=60_000)
    parser.add_argument("--seconds", type=float, default=10)
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
                measure(found, servers, folder, arguments.klines, arguments.seconds)
    print(json.dumps(found) if arguments.json else "\n".join(lines(found)))


def measure(found: dict[str, Any], servers: str, folder: Path, count: int, seconds: float) -> None:
    plain(servers, 5_000)  # whatever is made at first use
    # Plain before and after, since the machine may have changed meanwhile.
    before, own, after = plain(servers, count), layers(servers, count), plain(servers, count)
    rate = (before["klines_a_second"] + after["klines_a_second"]) / 2
    found["plain"] = [before, after]
    found["layers"] = own | {"of_plain": round(own["klines_a_second"] / rate, 2)}
    whole = bots(servers, folder, count)
    found["bots"] = whole | {"of_plain": round(whole["klines_a_second"] / rate, 2)}
    found["alone"] = alone(servers, folder, count)
    paced = bots(servers, folder, int(seconds * 200), rate=200)
    found["latency"] = spread_ms(paced["latencies_ns"][200:])
    found["order_path"] = order_path(servers, folder, seconds / 3)
    for one in (*found["plain"], found["layers"], found["bots"]):
        del one["latencies_ns"]


def lines(found: dict[str, Any]) -> Iterator[str]:
    yield found["broker"]
    if "memory" in found:
        it = found["memory"]
        yield f"memory, MB: publisher {it['produce_mb']}, stream {it['consume_mb']}"
        yield f"{it['klines_a_second']:,} klines/s; CPU a kline, us: {it['cpu_us']}"
        return
    rows = [("plain", found["plain"][0]), ("plain", found["plain"][1]), ("layers", found["layers"])]
    for name, one in (*rows, ("bots", found["bots"])):
        of = f", {one['of_plain']:.0%} of plain" if "of_plain" in one else ""
        yield (
            f"{name:7} {one['klines_a_second']:8,} klines/s{of}; CPU a kline: produce {one['produce_cpu_us']} us, "
            f"consume {one['consume_cpu_us']} us"
        )
    it = found["alone"]
    yield f"a bot without a broker {it['klines_a_second']:,} klines/s; CPU a kline: {it['cpu_us']} us"
    it = found["latency"]
    yield f"bot to bot at 200 klines/s: median {it['median_ms']} ms, p99 {it['p99_ms']} ms of {it['of']}"
    it = found["order_path"]
    yield (
        f"kline to order: {it['without_us']} us without publishing, {it['with_us']} us with it; pairs of turns differ "
        f"by {it['added_us']} us (quartiles {it['quartiles_us']}), {it['orders']} orders each"
    )


if __name__ == "__main__":
    main()
