"""Receives, stores, runs and reports commands."""
