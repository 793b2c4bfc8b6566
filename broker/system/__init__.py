"""Files, permissions and process of either side."""
