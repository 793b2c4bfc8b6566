"""Every error that this package raises."""

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
    "StateDirectoryInUse",
    "StoreError",
    "StoreFull",
    "UpgradeError",
]


class ConsumerError(CodedError):
    """Root of the errors of `consumer`."""

    code = "consumer_error"


class ConfigurationError(ConsumerError):
    """The agent's configuration says something that cannot be used."""

    code = "configuration_error"


class StoreError(ConsumerError):
    """The command store cannot do its work."""

    code = "store_error"


class StoreFull(StoreError):
    """The disk has no room for another command; results can still be reported and commands deleted."""

    code = "store_full"


class StateDirectoryInUse(StoreError):
    """Another agent holds the state directory."""

    code = "state_directory_in_use"


class ServiceError(ConsumerError):
    """The managed service could not be started, stopped or looked at."""

    code = "service_error"


class HandlerTableError(ConsumerError):
    """A handler cannot be used: it does not fit together, or another has its command type."""

    code = "handler_table_error"


class ProgramError(ConsumerError):
    """Another program could not be started, or does not speak as it should."""

    code = "program_error"


class ActiveResponseError(ConsumerError):
    """A script may not be run, or does not speak as an active response should."""

    code = "active_response_error"


class DownloadError(ConsumerError):
    """A file could not be fetched, or is not the one that was meant."""

    code = "download_error"


class ArchiveError(ConsumerError):
    """An archive is damaged, too large, or holds what must not be unpacked."""

    code = "archive_error"


class CentralizedConfigurationError(ConsumerError):
    """A centralized configuration cannot be applied, or cannot be read."""

    code = "centralized_configuration_error"


class UpgradeError(ConsumerError):
    """The agent cannot be upgraded as asked."""

    code = "upgrade_error"


class EnrolmentError(ConsumerError):
    """The agent could not be enrolled, or an enrolment on its disk cannot be used."""

    code = "enrolment_error"
