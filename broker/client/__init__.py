"""The client of the API, for programs: synchronous and asynchronous, with the same methods as a fleet on a ledger."""
