"""Prints what a bot publishes, with confluent-kafka only: kafka_consumer.py 127.0.0.1:9092 KafkaStreams trades"""

import sys

from confluent_kafka import Consumer

servers, *topics = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": servers, "group.id": "printer", "auto.offset.reset": "earliest"})
consumer.subscribe(topics)
while True:
    message = consumer.poll(1.0)
    if message is not None and message.error() is None:
        print(dict(message.headers())["type"].decode(), message.value().decode())
