"""The built-in handlers, one for each command type."""
