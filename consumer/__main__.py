"""`python -m consumer` is acm-agent."""

from consumer.cli.main import main

main()
