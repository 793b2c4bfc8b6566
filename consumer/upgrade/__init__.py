"""Upgrading the agent: the installation on its disk, the trial of a new release, and who watches it."""
