"""One MQTT 5 connection."""
