"""Letting the service read the active generation, and watching whether it runs well."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from consumer.configuration.validation import CheckFailed, filled
from consumer.errors import CentralizedConfigurationError
from consumer.ports import Service, ServiceState
from consumer.settings import CentralizedConfig
from consumer.system.programs import Bounds, run_program

__all__ = [
    "Reloader",
]


_PAUSE_S = 0.2


@dataclass(frozen=True)
class Reloader:
    """Reloads one service. `directory` and `file` are where it finds its configuration, `bounds` bounds all of it."""

    settings: CentralizedConfig
    service: Service
    directory: Path
    file: str
    bounds: Bounds

    def reload(self, incarnation: str | None) -> ServiceState:
        """Let the service read what is active, and return its state after that; raises ConsumerError.

        `incarnation` is the one that ran with another generation. A service that did not run, and does not, stays so.
        One of which another incarnation runs by now, or none, is restarted: nobody knows what it has read.
        """
        before = self.service.state()
        if before.kind == "none" or (before.running and before.incarnation == incarnation):
            after = self._reload_running(before)
        elif incarnation is None and not before.running:
            return before
        else:
            after = self.service.restart(self.bounds.deadline)
        if after.kind != "none" and not after.running:
            raise CentralizedConfigurationError("The service does not run after the reload.")
        return after

    def _reload_running(self, before: ServiceState) -> ServiceState:
        match self.settings.reload:
            case "signal":
                self._send_signal(before)
                return before
            case "restart":
                return self.service.restart(self.bounds.deadline)
            case "command":
                self._run_reload_command()
                return self.service.state()
            case _:
                return before

    def _send_signal(self, state: ServiceState) -> None:
        pid = (state.detail or {}).get("pid")
        if not isinstance(pid, int):
            raise CentralizedConfigurationError("The service's process id is not known, so no signal can reach it.")
        try:
            os.kill(pid, self.settings.signal_number)
        except OSError as error:
            raise CentralizedConfigurationError(
                f"The service (process {pid}) took no signal: {error.strerror}."
            ) from error

    def _run_reload_command(self) -> None:
        argv = self.settings.reload_command
        ended = run_program(filled(argv, self.directory, self.file), self.bounds.as_agent())
        if not ended.good:
            raise CheckFailed(f"The reload command {argv[0]} {ended.in_words()}.", ended.output)

    def watch(self, reloaded: ServiceState) -> None:
        """Return when the service has shown that it runs well; raises ConsumerError when it does not.

        Where a service is managed it is watched for the whole grace, else only until the health check comes good.
        """
        begun = self.bounds.clock.monotonic()
        within = replace(self.bounds, deadline=min(begun + self.settings.grace_s, self.bounds.deadline))
        trouble = self._trouble(within)
        while trouble is not None or reloaded.running:
            left = within.deadline - self.bounds.clock.monotonic()
            if left <= 0:
                break
            if self.bounds.cancelled.wait(min(_PAUSE_S, left)):
                raise CentralizedConfigurationError(
                    "The command was cancelled before the service had shown that it runs well."
                )
            self._refuse_death(reloaded)
            trouble = trouble and self._trouble(within, trouble)
        if trouble is not None:
            raise trouble
        if reloaded.running and within.deadline < begun + self.settings.grace_s:
            raise CentralizedConfigurationError(
                "The command's time was over before the service had been watched for the whole grace; "
                "give it a longer timeout."
            )

    def _refuse_death(self, reloaded: ServiceState) -> None:
        now = self.service.state()
        if reloaded.running and (not now.running or now.incarnation != reloaded.incarnation):
            raise CentralizedConfigurationError("The service died after the reload.")

    def _trouble(self, within: Bounds, before: CheckFailed | None = None) -> CheckFailed | None:
        """Run the health check once; return what is wrong. One that the grace cuts off says less than that before."""
        argv = self.settings.health_check
        if not argv:
            return None
        ended = run_program(filled(argv, self.directory, self.file), within)
        if ended.good:
            return None
        if ended.overdue and before is not None:
            return before
        message = f"The health check {argv[0]} was not good within {self.settings.grace_s:g} s: it {ended.in_words()}."
        return CheckFailed(message, ended.output)
