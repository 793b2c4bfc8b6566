"""Who may change or read the agent's files, and whether the agent itself may write them."""

import os
import pwd
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from broker.errors import CodedError, ExposedFileError
from broker.system.advice import advised_command
from broker.system.findings import NOT_CHECKED, Fault, Finding, Level, ok
from broker.system.permissions import refuse_changeable, refuse_readable
from consumer.doctor.patient import Patient
from consumer.upgrade.installation import Installation

__all__ = ["check_agents_permissions"]


EXPOSED = Fault(
    "agents_files_exposed",
    Level.FAIL,
    "Another user of this machine can change what the agent relies on, or read its secrets.",
    "Check whether that has happened, then run the chmod, chown or setfacl that the sentence names.",
)
OTHER_USER = Fault(
    "state_directory_of_another_user",
    Level.FAIL,
    "The state directory belongs to another user than this one: an agent of this user would refuse it.",
    "Run the doctor as that user: runuser -u USER -- acm-agent doctor (or give the directory away with `chown -R`)",
)
NOT_WRITABLE = Fault(
    "state_directory_not_writable",
    Level.FAIL,
    "The agent may not write to its state directory.",
    "Make the directory and what is in it writable for the agent's user: chmod -R u+rwX DIR",
)
_CHECK = "permissions"


def check_agents_permissions(patient: Patient) -> Iterator[Finding]:
    """Look at the state directory, the key, the configuration's directory and the installed releases."""
    state = patient.state
    if state is None or not state.is_dir():
        return
    owner = state.stat().st_uid
    if owner != os.geteuid():
        yield _of_another_user(state, owner, patient)
    elif not os.access(state, os.W_OK | os.X_OK, effective_ids=True):
        fix = shlex.join(["chmod", "-R", "u+rwX", str(state)])
        yield NOT_WRITABLE.found(_CHECK, f"The agent may not write to {state}.", fix=fix)
    exposed = dict.fromkeys(_exposed(patient, state, owner))  # what is above two of them is found twice
    yield from exposed
    if not exposed:
        yield ok(_CHECK, f"No other user can change {state}, or read the key in it.")


def _of_another_user(state: Path, owner: int, patient: Patient) -> Finding:
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"#{owner}"
    fix = f"Run the doctor as the agent's user: runuser -u {shlex.quote(name)} -- {patient.command('doctor')}"
    return OTHER_USER.found(_CHECK, f"{state} belongs to {name}, not to this user.", fix=fix)


def _exposed(patient: Patient, state: Path, owner: int) -> Iterator[Finding]:
    key = patient.enrolment.directory / "key.pem" if patient.enrolment is not None else None
    root = patient.config.upgrade.root if patient.config is not None else None
    looks: list[Callable[[], None]] = [lambda: refuse_changeable(state, owners=[owner])]
    if key is not None:
        looks.append(lambda: refuse_readable(key, owners=[owner]))
    if root is not None:
        looks.append(Installation(Path(root)).refuse_exposed)
    for look in looks:
        try:
            look()
        except ExposedFileError as error:
            yield EXPOSED.found(_CHECK, str(error), fix=advised_command(error))
        except (CodedError, OSError) as error:
            yield NOT_CHECKED.found(_CHECK, f"Not checked: {error}")
    refused = patient.config_error
    if isinstance(refused, ExposedFileError) and str(state) not in str(refused):  # that of the configuration file
        yield EXPOSED.found(_CHECK, str(refused), fix=advised_command(refused))
