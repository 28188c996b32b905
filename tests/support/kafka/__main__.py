"""A broker for a developer: Apache Kafka on loopback until Ctrl-C, its data kept. `--fetch` only gets its jars."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from tests.support.kafka import jars
from tests.support.kafka.brokers import ApacheKafka


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/kafka", description=__doc__)
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--data-dir", type=Path, default=Path("data/kafka"))
    parser.add_argument("--fetch", action="store_true", help="fetch the jars and end")
    arguments = parser.parse_args()
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    try:
        if arguments.fetch:
            jars.java()
            print(f"Apache Kafka {jars.version()}: {jars.fetch()}")
            return 0
        broker = ApacheKafka(arguments.data_dir.absolute(), arguments.port)
    except jars.NoBroker as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{broker.title}, started in {broker.start_s:.1f} s, data in {arguments.data_dir}. "
        f"BOT_KAFKA__BOOTSTRAP_SERVERS={broker.servers}; Ctrl-C ends it",
        flush=True,
    )
    try:
        done.wait()
    except KeyboardInterrupt:
        print()
    broker.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
