"""Traces: what a program tells a collector of the spans of a command, if it is configured to."""
