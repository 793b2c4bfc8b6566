"""What a valid configuration lacks around it on this machine: an enrolment, programs, keys."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from broker.errors import ExposedFileError
from broker.system.permissions import refuse_changeable
from consumer.active_response.allow_list import AllowList
from consumer.enrolment.store import EnrolmentDirectory
from consumer.settings import AgentConfig

__all__ = ["missing_enrolment", "shortcomings"]


def missing_enrolment(config: AgentConfig) -> str | None:
    """Return a sentence if the agent would refuse to start for want of an enrolment."""
    if config.accept_unsigned or EnrolmentDirectory(Path(config.state)).current() is not None:
        return None
    return f"`run` will refuse to start: {config.agent} is not enrolled; run `acm-agent enroll`."


def shortcomings(config: AgentConfig) -> Iterator[str]:
    """Yield a sentence for each thing without which a part of the agent will not work here.

    Raises the errors of `AllowList.load`.
    """
    for name, argv in (
        ("service.argv", config.service.argv if config.service.kind == "child" else ()),
        ("configuration.check", config.configuration.check),
        ("configuration.reload_command", config.configuration.reload_command),
        ("configuration.health_check", config.configuration.health_check),
    ):
        if argv and shutil.which(argv[0]) is None:
            yield f"{name}: {argv[0]} is not a program that can be run here."
    refused = AllowList.load(config.active_response).problem if config.active_response.allow_list else None
    if refused is not None:
        yield f"active_response.allow_list: {refused}"
    try:
        refuse_changeable(config.configuration_root)
    except ExposedFileError as error:
        yield f"configuration.directory: another user can lead what the agent writes there to other places: {error}"
    except OSError:
        pass  # the first configuration makes it
    if config.upgrade.root is not None and not config.upgrade.public_keys:
        yield "upgrade.public_keys is empty: `upgrade-agent` will refuse every package."
