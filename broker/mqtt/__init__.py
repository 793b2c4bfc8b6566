"""The MQTT 5 connection of both sides."""
