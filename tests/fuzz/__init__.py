"""Hostile bytes for everything that reads what others wrote. `make fuzz` runs it for long, `make test` for a moment."""
