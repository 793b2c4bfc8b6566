"""The protocol that both sides share: messages, codec, limits, command types. Pure: no I/O, no clock."""
