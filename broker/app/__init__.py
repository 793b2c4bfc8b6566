"""Composition roots: configuration, and the processes built from it."""
