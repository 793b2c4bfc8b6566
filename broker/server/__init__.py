"""The server's side of the wire."""
