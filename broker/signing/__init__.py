"""The keys that the server signs with."""
