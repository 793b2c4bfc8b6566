"""Mosquitto as a child process, and its files."""
