"""The durable command store and its audit journal."""
