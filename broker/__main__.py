"""acm, also as `python -m broker`."""

from broker.cli import SERVICES
from broker.system.early_signals import run_with_signals

__all__ = [
    "main",
]


def main() -> None:
    """Run acm. The modules that take long are loaded when signals can end the process."""
    run_with_signals("acm", SERVICES, _run)


def _run() -> None:
    from broker.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
