"""acm-agent, also as `python -m consumer`."""

from broker.system.early_signals import run_with_signals
from consumer.cli import SERVICES

__all__ = [
    "main",
]


def main() -> None:
    """Run acm-agent. The modules that take long are loaded when signals can end the process."""
    run_with_signals("acm-agent", SERVICES, _run)


def _run() -> None:
    from consumer.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
