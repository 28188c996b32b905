"""Real Kafka brokers without a container engine: which one a test run takes, and how it is started and killed."""
