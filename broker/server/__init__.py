"""The server: it sends the ledger's commands over MQTT and records what agents send."""
