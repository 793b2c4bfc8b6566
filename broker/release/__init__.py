"""The format of upgrade packages."""
