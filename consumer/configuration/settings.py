"""The section `[configuration]`: where a centralized configuration is kept, and how a new one is tried."""

import math
import signal
from typing import Literal

import msgspec

from broker.contract.configurations import FileName
from consumer.errors import ConfigurationError

__all__ = ["CentralizedConfig"]


class CentralizedConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where generations are kept, and the programs that judge them.

    In `check`, `reload_command` and `health_check` the words `{directory}` and `{file}` stand for the paths of the
    generation and of its single file. `check` judges the files before they become active; `health_check` judges the
    service afterwards, again and again, and must come good within `grace_s` seconds. A managed service that dies
    within them counts as bad too. `keep` older generations stay on the disk. `directory` is below the agent's state
    directory when it is not given.
    """

    directory: str | None = None
    file: FileName = "config"
    check: tuple[str, ...] = ()
    reload: Literal["none", "signal", "command", "restart"] = "none"
    reload_signal: str = "HUP"
    reload_command: tuple[str, ...] = ()
    health_check: tuple[str, ...] = ()
    grace_s: float = 5.0
    keep: int = 3

    @property
    def signal_number(self) -> signal.Signals:
        """The signal that `reload_signal` names, with or without SIG; raises KeyError for one that does not exist."""
        return signal.Signals[f"SIG{self.reload_signal.upper().removeprefix('SIG')}"]

    def verify(self, *, has_service: bool) -> None:
        """Raise ConfigurationError with one sentence when the values do not fit together."""
        if self.reload in ("signal", "restart") and not has_service:
            raise ConfigurationError(
                f"configuration.reload is {self.reload!r}, but the agent manages no service; configure [service]."
            )
        if self.reload == "command" and not self.reload_command:
            raise ConfigurationError(
                "configuration.reload is 'command', but configuration.reload_command is empty; name the program to run."
            )
        if not (self.grace_s > 0 and math.isfinite(self.grace_s)) or self.keep < 1:
            raise ConfigurationError("configuration.grace_s must be greater than 0, and configuration.keep at least 1.")
        try:
            _ = self.signal_number
        except KeyError:
            raise ConfigurationError(
                f"configuration.reload_signal is {self.reload_signal!r}, which is no signal; write HUP or USR1."
            ) from None
