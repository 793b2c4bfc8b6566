"""Centralized configuration: generations on disk, of which one is active, and how to activate another."""
