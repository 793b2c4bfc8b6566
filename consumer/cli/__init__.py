"""The commands of The commands of acm-agent."""
