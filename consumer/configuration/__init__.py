"""Centralized configuration: generations on disk, one of which is active, and how another is activated."""
