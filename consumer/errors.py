"""The errors of this package."""

from broker.errors import CodedError

__all__ = [
    "ActiveResponseError",
    "ArchiveError",
    "CentralizedConfigurationError",
    "ConfigurationError",
    "ConsumerError",
    "DownloadError",
    "EnrolmentError",
    "HandlerTableError",
    "ProgramError",
    "ServiceError",
    "ServiceUnreachable",
    "StateDirectoryInUse",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "UpgradeError",
]


class ConsumerError(CodedError):
    """Root of the errors of `consumer`."""

    code = "consumer_error"


class ConfigurationError(ConsumerError):
    """The agent's configuration has a value that cannot be used."""

    code = "configuration_error"


class StoreError(ConsumerError):
    """The command store cannot be opened, read or written."""

    code = "store_error"


class StoreFull(StoreError):
    """The disk has no space for another command; results can still be stored and commands deleted."""

    code = "store_full"


class StoreLocked(StoreError):
    """Another process has locked the command store's database; nothing was changed, and it can be tried again."""

    code = "store_locked"


class StoreDamaged(StoreError):
    """The command store is damaged: it can be set aside, and a new one created."""

    code = "store_damaged"


class StateDirectoryInUse(StoreError):
    """Another process has locked the state directory."""

    code = "state_directory_in_use"


class ServiceError(ConsumerError):
    """The managed service could not be started, stopped or inspected."""

    code = "service_error"


class ServiceUnreachable(ServiceError):
    """The means by which the service is controlled failed, so nothing is known of the service itself."""

    code = "service_unreachable"


class HandlerTableError(ConsumerError):
    """A handler cannot be used: it is not valid, or another one has its command type."""

    code = "handler_table_error"


class ProgramError(ConsumerError):
    """A program could not be started, or violated its protocol."""

    code = "program_error"


class ActiveResponseError(ConsumerError):
    """A script may not be run, or violated the protocol of active responses."""

    code = "active_response_error"


class DownloadError(ConsumerError):
    """A file could not be downloaded, or does not match its hash or size."""

    code = "download_error"


class ArchiveError(ConsumerError):
    """An archive is damaged, too large, or has a member that must not be unpacked."""

    code = "archive_error"


class CentralizedConfigurationError(ConsumerError):
    """A centralized configuration cannot be applied or read."""

    code = "centralized_configuration_error"


class UpgradeError(ConsumerError):
    """The agent cannot be upgraded as requested."""

    code = "upgrade_error"


class EnrolmentError(ConsumerError):
    """The agent could not be enrolled, or its stored enrolment cannot be used."""

    code = "enrolment_error"
