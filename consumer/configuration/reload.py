"""Makes the service read the active generation, and watches whether it stays healthy."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from consumer.configuration.effects import Effects
from consumer.configuration.validation import CheckFailed, fill_paths
from consumer.errors import CentralizedConfigurationError, ConsumerError, ProgramError, ServiceUnreachable
from consumer.ports import Service, ServiceState
from consumer.settings import CentralizedConfig
from consumer.system.programs import Bounds

__all__ = [
    "Reloader",
]


_POLL_INTERVAL_S = 0.2


@dataclass(frozen=True)
class Reloader:
    """Reloads and watches one service within `bounds`. `directory` and `file` are where it finds its configuration."""

    settings: CentralizedConfig
    service: Service
    directory: Path
    file: str
    bounds: Bounds
    effects: Effects = field(default_factory=Effects)

    def reload(self, incarnation: str | None) -> ServiceState:
        """Make the service read the active generation, and return its state after that; raises ConsumerError.

        `incarnation` is the one that ran with another generation. A service that did not run and still does not is left
        stopped. If another incarnation runs, or none does any more, the service is restarted, because it is unknown
        which generation it read.
        """
        before = self.service.state()
        if before.kind == "none" or (before.running and before.incarnation == incarnation):
            after = self._reload_running(before)
        elif incarnation is None and not before.running:
            return before
        else:
            after = self.service.restart(self.bounds.deadline)
        if after.kind != "none" and not after.running:
            raise CentralizedConfigurationError(
                "The service does not run after the reload.", code="service_died_on_reload"
            )
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
            raise CentralizedConfigurationError(
                "The service's process id is unknown, so it cannot be sent a signal.", code="service_pid_unknown"
            )
        try:
            self.effects.send_signal(pid, self.settings.signal_number)
        except PermissionError as error:
            raise ServiceUnreachable(
                f"The agent may not send the service (process {pid}) a signal: it runs as another user.",
                code="signal_not_allowed",
            ) from error
        except OSError as error:
            raise CentralizedConfigurationError(
                f"The service (process {pid}) could not be sent a signal: {error.strerror}.", code="signal_not_sent"
            ) from error

    def _run_reload_command(self) -> None:
        argv = self.settings.reload_command
        ended = self.effects.run(fill_paths(argv, self.directory, self.file), self.bounds.as_agent())
        if not ended.good:
            raise CheckFailed(
                f"The reload command {argv[0]} {ended.in_words()}.", ended.output, code="reload_command_failed"
            )

    def watch(self, reloaded: ServiceState) -> None:
        """Return once the service has proved healthy; raises ConsumerError if it does not.

        Raises ServiceUnreachable or ProgramError if that could not be seen: then it is not known. A managed service is
        watched for the whole grace period; without one, the first successful health check is enough.
        """
        begun = self.bounds.clock.monotonic()
        within = replace(self.bounds, deadline=min(begun + self.settings.grace_s, self.bounds.deadline))
        unseen: ConsumerError | None = None
        problem = self._health_problem(within)
        # design.md: "A managed service is watched for the whole grace period"
        while problem is not None or reloaded.running:
            left = within.deadline - self.bounds.clock.monotonic()
            if left <= 0:
                break
            if self.effects.wait(self.bounds.cancelled, min(_POLL_INTERVAL_S, left)):
                raise CentralizedConfigurationError(
                    "The command was cancelled before the service had proved healthy.", code="cancelled"
                )
            unseen = self._unseen(reloaded)
            problem = problem and self._health_problem(within, problem)
        problem = unseen or problem
        if problem is not None:
            raise problem
        if reloaded.running and within.deadline < begun + self.settings.grace_s:
            raise CentralizedConfigurationError(
                "The command timed out before the service had been watched for the whole grace period; "
                "give it a longer timeout.",
                code="watch_cut_short",
            )

    def _unseen(self, reloaded: ServiceState) -> ServiceUnreachable | None:
        """Return why it is not known whether the service still runs; raises ConsumerError if it does not."""
        try:
            self._check_alive(reloaded)
        except ServiceUnreachable as error:
            return error
        return None

    def _check_alive(self, reloaded: ServiceState) -> None:
        now = self.service.state()
        if reloaded.running and (not now.running or now.incarnation != reloaded.incarnation):
            raise CentralizedConfigurationError("The service died after the reload.", code="service_died")

    def _health_problem(self, within: Bounds, before: ConsumerError | None = None) -> ConsumerError | None:
        """Run the health check once and return why it failed, or None; `before` is the failure of the previous check.

        If the end of the grace period cuts a check off, the previous failure is returned: it explains more. A check
        that could not be started is a ProgramError.
        """
        argv = self.settings.health_check
        if not argv:
            return None
        try:
            ended = self.effects.run(fill_paths(argv, self.directory, self.file), within)
        except ProgramError as error:
            return error
        if ended.good:
            return None
        if ended.overdue and before is not None:
            return before
        message = (
            f"The health check {argv[0]} did not succeed within {self.settings.grace_s:g} s: it {ended.in_words()}."
        )
        return CheckFailed(message, ended.output, code="health_check_failed")
