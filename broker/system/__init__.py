"""Files, locks, permissions, settings, logs and the own process, for both programs."""
