"""All checks of `acm doctor`, for one configuration."""

from broker.app.config import ServerConfig
from broker.app.factories import utc_now
from broker.doctor.access import check_access
from broker.doctor.broker import check_broker
from broker.doctor.certificates import check_certificates, check_revocation_list
from broker.doctor.clock import check_clock
from broker.doctor.disks import check_disks
from broker.doctor.files import check_files
from broker.doctor.ledger import check_ledger
from broker.doctor.places import configured_directories
from broker.doctor.server import check_server
from broker.doctor.versions import check_agents_versions, check_versions
from broker.system.checkup import Check

__all__ = [
    "server_checks",
]


def server_checks(config: ServerConfig) -> list[Check]:
    """Return the checks in the order in which they are shown: what others need comes first."""
    return [
        Check("ledger", lambda: check_ledger(config.ledger)),
        Check("server", lambda: check_server(config.ledger, config.client_id)),
        Check("broker", lambda: check_broker(config, utc_now())),
        Check("acl", lambda: check_access(config, utc_now())),
        Check("certificates", lambda: check_certificates(config, utc_now())),
        Check("revocation list", lambda: check_revocation_list(config, utc_now())),
        Check("clock", lambda: check_clock(config.ledger, utc_now)),
        Check("disk", lambda: check_disks(configured_directories(config))),
        Check("permissions", lambda: check_files(config)),
        Check("versions", check_versions),
        Check("versions", lambda: check_agents_versions(config.ledger)),
    ]
