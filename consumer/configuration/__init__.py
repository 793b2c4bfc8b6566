"""The centralized configuration: generations on disk, one of them active, and how another becomes so."""
