"""Compares agents' audit journals with the ledger."""
