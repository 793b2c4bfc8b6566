"""The broker's side of the agent command manager, and the contract that both sides speak."""
