"""The agent: stores commands durably, runs them in order, and reports exactly one true result for each."""
