"""Every error that this package raises."""

__all__ = [
    "ActiveResponseError",
    "ArchiveError",
    "CentralizedConfigurationError",
    "ConfigurationError",
    "ConsumerError",
    "DownloadError",
    "EnrolmentError",
    "ExposedError",
    "HandlerTableError",
    "ProgramError",
    "ServiceError",
    "StateDirectoryInUse",
    "StoreError",
    "StoreFull",
    "UpgradeError",
]


class ConsumerError(Exception):
    """Root of the errors of `consumer`. Its text is one sentence meant for the user."""


class ConfigurationError(ConsumerError):
    """The agent's configuration says something that cannot be used."""


class ExposedError(ConsumerError):
    """Another user of the machine could change a file that the agent lives by, or read a secret of it."""


class StoreError(ConsumerError):
    """The command store cannot do its work."""


class StoreFull(StoreError):
    """The disk has no room for another command; results can still be reported and commands deleted."""


class StateDirectoryInUse(StoreError):
    """Another agent holds the state directory."""


class ServiceError(ConsumerError):
    """The managed service could not be started, stopped or looked at."""


class HandlerTableError(ConsumerError):
    """A handler cannot be used: it does not fit together, or another has its command type."""


class ProgramError(ConsumerError):
    """Another program could not be started, or does not speak as it should."""


class ActiveResponseError(ConsumerError):
    """A script may not be run, or does not speak as an active response should."""


class DownloadError(ConsumerError):
    """A file could not be fetched, or is not the one that was meant."""


class ArchiveError(ConsumerError):
    """An archive is damaged, too large, or holds what must not be unpacked."""


class CentralizedConfigurationError(ConsumerError):
    """A centralized configuration cannot be applied, or cannot be read."""


class UpgradeError(ConsumerError):
    """The agent cannot be upgraded as asked."""


class EnrolmentError(ConsumerError):
    """The agent could not be enrolled, or an enrolment on its disk cannot be used."""
