"""Kafka. `codec` needs no client; the other modules import confluent-kafka, so whoever has no broker imports none."""
