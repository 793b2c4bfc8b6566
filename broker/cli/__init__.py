"""acm, one module a command group."""
