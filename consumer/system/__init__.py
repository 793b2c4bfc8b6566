"""Access to the machine: programs, files, downloads."""
