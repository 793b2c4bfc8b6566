"""Pure: the messages, words and codec that both sides speak. No I/O, no clock."""
