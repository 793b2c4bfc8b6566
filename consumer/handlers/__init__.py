"""The built-in handlers, one a command type."""
