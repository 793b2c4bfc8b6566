"""acm: one module for each command group."""
