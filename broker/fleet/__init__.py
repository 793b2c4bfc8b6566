"""What an operator can see and do with the fleet, wherever the ledger is."""
