"""Tools for this repository: the demonstration, generated documents, checks, and packaging."""
