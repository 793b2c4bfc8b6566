"""Who may use the API, and what they did with it."""
