"""What stands behind the ports: exchanges, streams, stores and logs. No adapter knows another."""
