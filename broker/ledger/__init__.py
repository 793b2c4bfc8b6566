"""The ledger: every command, its state and its result, in one database."""
