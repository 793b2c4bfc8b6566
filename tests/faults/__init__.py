"""Faults of the machine, again and again, for as long as is asked: `python -m tests.faults` (`make faults`)."""
