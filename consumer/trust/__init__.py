"""Who may command this agent, and what time it is."""
