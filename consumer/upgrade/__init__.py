"""Upgrades of the agent: its installation on disk, the trial of a new release, and the watcher."""
