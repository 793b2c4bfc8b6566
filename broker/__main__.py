"""acm, also as `python -m broker`."""

import signal

from broker.cli import SERVICES
from broker.system.early_signals import await_signals_early

__all__ = [
    "main",
]


def main() -> None:
    """Run acm. The modules that take long are loaded when signals can end the process."""
    await_signals_early(SERVICES)
    from broker.cli.main import main as run

    try:
        run()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interpreter would show a traceback while it ends


if __name__ == "__main__":
    main()
