"""The command type rotate-logs: a plug-in of the agent command manager."""
