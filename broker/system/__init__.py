"""Files, locks, permissions, settings, logs and the current process, for both programs."""
