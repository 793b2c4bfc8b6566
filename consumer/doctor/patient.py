"""What is examined: the state directory and the configuration of one agent, as far as they can be read."""

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from broker.errors import CodedError
from consumer.config import load_config
from consumer.enrolment.store import Enrolment, EnrolmentDirectory
from consumer.settings import AgentConfig
from consumer.store.process_record import ProcessRecord, live_record

__all__ = ["Patient", "patient_of"]


_T = TypeVar("_T")


@dataclass(frozen=True)
class Patient:
    """One agent. What cannot be read is None, and the error beside it says why.

    `state` is None if no state directory is configured. `record` is that of the process that runs now.
    """

    state: Path | None
    config: AgentConfig | None
    config_error: CodedError | None
    enrolment: Enrolment | None
    enrolment_error: CodedError | None
    record: ProcessRecord | None = None

    @property
    def broker(self) -> str | None:
        """The URL of the broker that the agent uses."""
        if self.enrolment is not None:
            return self.enrolment.grant.broker
        if self.config is not None:
            return self.config.broker[:]
        return self.record.broker if self.record is not None else None

    @property
    def accepts_unsigned(self) -> bool:
        """Whether the agent runs unsigned commands; one that is not enrolled runs only if it does."""
        if self.config is not None and self.config.accept_unsigned:
            return True
        return self.record is not None and self.enrolment is None

    def command(self, *words: str) -> str:
        """Return a command line of acm-agent for this state directory, to be copied into a shell."""
        return shlex.join(["acm-agent", *words, *(["--state", str(self.state)] if self.state else [])])


def patient_of(path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Patient:
    """Return the agent of this configuration, and what of it cannot be read."""
    config, config_error = _read(lambda: load_config(path, flags, environment))
    named = config.state if config is not None else flags.get("state") or environment.get("ACM_STATE")
    if not named:
        return Patient(None, config, config_error, None, None)
    state = Path(named)
    enrolment, enrolment_error = _read(EnrolmentDirectory(state).current)
    record, _ = _read(lambda: live_record(state))  # the check of the process reports the error
    return Patient(state, config, config_error, enrolment, enrolment_error, record)


def _read(read: Callable[[], _T]) -> tuple[_T | None, CodedError | None]:
    try:
        return read(), None
    except CodedError as error:
        return None, error
