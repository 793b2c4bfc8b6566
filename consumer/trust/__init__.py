"""Which server may command this agent, and the trusted time."""
