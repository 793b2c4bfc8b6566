"""What the command lines of both programs share: their output in each format, its options, and completion."""
