"""Every error that this package raises."""

__all__ = [
    "ArchiveError",
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
]


class ConsumerError(Exception):
    """Root of the errors of `consumer`. Its text is one sentence meant for the user."""


class ConfigurationError(ConsumerError):
    """The agent's configuration says something that cannot be used."""


class StoreError(ConsumerError):
    """The command store cannot do its work."""


class StoreFull(StoreError):
    """The disk has no room for another command; results can still be reported and commands deleted."""


class StateDirectoryInUse(StoreError):
    """Another agent holds the state directory."""


class ServiceError(ConsumerError):
    """The managed service could not be started, stopped or looked at."""


class HandlerTableError(ConsumerError):
    """Two handlers claim the same command type."""


class ProgramError(ConsumerError):
    """Another program could not be started, or does not speak as it should."""


class DownloadError(ConsumerError):
    """A file could not be fetched, or is not the one that was meant."""


class ArchiveError(ConsumerError):
    """An archive is damaged, too large, or holds what must not be unpacked."""


class EnrolmentError(ConsumerError):
    """The agent could not be enrolled, or an enrolment on its disk cannot be used."""
