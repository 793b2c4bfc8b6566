"""`make demo`: the whole system, step by step with real processes."""
