"""Metrics: what is counted, how it is exposed to Prometheus, and the address at which that is served."""
