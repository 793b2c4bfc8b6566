"""All checks of `acm-agent doctor`, for one agent."""

from broker.system.checkup import Check
from consumer.doctor.broker import check_agents_broker
from consumer.doctor.certificates import check_agent_certificates
from consumer.doctor.clock import check_agents_clock
from consumer.doctor.configuration import check_agent_configuration, check_plug_ins
from consumer.doctor.disks import check_agents_disk
from consumer.doctor.enrolment import check_agent_enrolment, check_enrolment_server
from consumer.doctor.patient import Patient
from consumer.doctor.permissions import check_agents_permissions
from consumer.doctor.process import check_process
from consumer.doctor.store import check_store
from consumer.doctor.versions import check_agents_versions_here
from consumer.ports import Clock

__all__ = ["agent_checks"]


def agent_checks(patient: Patient, clock: Clock) -> list[Check]:
    """Return the checks in the order in which they are shown: what others need comes first.

    Without a state directory there is no agent to look at, only what is installed.
    """
    installed = [
        Check("configuration", lambda: check_agent_configuration(patient)),
        Check("configuration", check_plug_ins),
        Check("versions", lambda: check_agents_versions_here(patient)),
    ]
    return installed if patient.state is None else [*installed, *_of_the_agent(patient, clock)]


def _of_the_agent(patient: Patient, clock: Clock) -> list[Check]:
    return [
        Check("permissions", lambda: check_agents_permissions(patient)),
        Check("disk", lambda: check_agents_disk(patient)),
        Check("store", lambda: check_store(patient)),
        Check("enrolment", lambda: check_agent_enrolment(patient)),
        Check("certificates", lambda: check_agent_certificates(patient, clock.now())),
        Check("clock", lambda: check_agents_clock(patient, clock)),
        Check("broker", lambda: check_agents_broker(patient, clock.now())),
        Check("enrolment server", lambda: check_enrolment_server(patient, clock)),
        Check("process", lambda: check_process(patient, clock.now())),
    ]
