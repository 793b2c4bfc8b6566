"""`python -m consumer` is acm-agent."""

from consumer.cli import main

main()
