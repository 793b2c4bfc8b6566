"""acm-agent."""
