"""The disk: whether the file systems that the agent writes to have room."""

from collections.abc import Iterator

from broker.system.disk_room import RoomRules, room_findings
from broker.system.findings import Fault, Finding, Level
from consumer.doctor.patient import Patient
from consumer.store.state_directory import LEAST_ROOM_BYTES

__all__ = ["check_agents_disk"]


FULL = Fault(
    "agents_disk_full",
    Level.FAIL,
    "A file system that the agent writes to has no room or no inodes left, so no command is accepted.",
    "Make room: `df -h` and `df -i` show what is used.",
)
FILLS = Fault(
    "agents_disk_fills",
    Level.WARN,
    "A file system that the agent writes to has less than a tenth and less than 256 MiB left.",
    "Make room soon: `df -h` shows what is used.",
)
READ_ONLY = Fault(
    "agents_disk_read_only",
    Level.FAIL,
    "A file system that the agent writes to is mounted to be read only.",
    "Look for errors of the disk with `dmesg`, then mount it again: mount -o remount,rw PATH",
)
_RULES = RoomRules(
    FULL,
    FILLS,
    READ_ONLY,
    LEAST_ROOM_BYTES + 1,  # the store needs more than that
    256 << 20,
    lambda free, size: f"{free / (1 << 20):,.0f} of {size / (1 << 20):,.0f} MiB",
)


def check_agents_disk(patient: Patient) -> Iterator[Finding]:
    """Look at the file system of the state directory, and at that of the configurations if it is another one."""
    root = patient.config.configuration_root if patient.config is not None else None
    directories = (it for it in (patient.state, root) if it is not None and it.is_dir())
    return room_findings(directories, _RULES)
