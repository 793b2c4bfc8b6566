"""The page for operators: what a browser sees of the fleet, before the API and with its rights."""
