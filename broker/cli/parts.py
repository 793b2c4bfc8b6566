"""The parts that a command of acm works with, on a ledger or over the API of a server elsewhere."""

import contextlib
import getpass
import os
import socket
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from broker.app.config import ServerConfig, load_config
from broker.app.contexts import ApiContext
from broker.cli.where import needs_ledger
from broker.console.output import Printer, print_text
from broker.contract.messages import Origin
from broker.text import encodable
from broker.tracing.environment import context_in

if TYPE_CHECKING:
    from broker.access.port import AccessTokens, OperatorCertificates
    from broker.client.client import Client
    from broker.enrolment.store import EnrolmentStore
    from broker.fleet.audit_port import JournalAudits
    from broker.fleet.blob_port import StoredBlobs
    from broker.fleet.enrolment_port import Enrolments
    from broker.fleet.key_port import SigningKeyList
    from broker.fleet.port import Fleet
    from broker.fleet.report_models import Diagnosis
    from broker.fleet.report_port import Reports
    from broker.ledger.clock import LedgerClock
    from broker.ledger.database import Database
    from broker.ledger.ledger import Ledger
    from broker.ledger.waiting import Wait
    from broker.pki.authority import CertificateAuthority
    from broker.signing.key_store import SigningKeyStore

__all__ = [
    "Parts",
]


_HURRY_S = 3.0


class Parts:
    """The parts that the configuration of a command names: opened at first use, and closed at the end of its block.

    With `api`, only what an operator may use from anywhere is there, over that API: everything besides raises
    InvalidArgument. One that `hurries` asks it once, and does not wait for long. Every property may raise
    ServerConfigurationError. The factories are imported when they are called, so that a command loads only the
    libraries that it uses.
    """

    def __init__(
        self,
        config_file: Path | None,
        overrides: Mapping[str, str | None],
        *,
        printer: Printer,
        api: ApiContext | None = None,
        hurries: bool = False,
        creates_ledger: bool = False,
        only_reads: bool = False,
    ) -> None:
        self._api = api
        self._hurries = hurries
        self.config_file = config_file
        self.overrides = overrides
        self.printer = printer
        self._creates_ledger = creates_ledger
        self._only_reads = only_reads
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def change_nothing(self) -> None:
        """Open the ledger as a command does that only reads; for --dry-run, before anything is opened."""
        self._creates_ledger, self._only_reads = False, True

    @property
    def origin(self) -> Origin:
        """The user that runs acm, on this machine: the origin of commands."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = str(os.getuid())
        return Origin(name=encodable(f"{user}@{socket.gethostname()}"), module="acm")

    @cached_property
    def config(self) -> ServerConfig:
        """The configuration: options override the environment, the environment the file, the file the defaults."""
        return load_config(self.config_file, self.overrides)

    @property
    def is_over_api(self) -> bool:
        """Whether it works over an API, and not on a ledger."""
        return self._api is not None

    @cached_property
    def fleet(self) -> "Fleet":
        """What an operator sees of the fleet, and does with it; raises LedgerError."""
        if self.is_over_api:
            return self._client
        from broker.fleet.on_ledger import LedgerFleet
        from broker.fleet.traced_sending import within

        return LedgerFleet(self.ledger, self.origin, tell=self.tell, creating=within(context_in(os.environ)))

    @cached_property
    def reports(self) -> "Reports":
        """The reports on the fleet; raises LedgerError."""
        if self.is_over_api:
            return self._client
        from broker.fleet.reports_on_ledger import LedgerReports

        return LedgerReports(self.ledger)

    @cached_property
    def enrolments(self) -> "Enrolments":
        """The enrolments of agents, and the tokens for new ones; raises LedgerError."""
        if self.is_over_api:
            return self._client
        from broker.app.enrolments_here import EnrolmentsHere

        return EnrolmentsHere(self.database, self.config, now=self.clock)

    @cached_property
    def key_list(self) -> "SigningKeyList":
        """The list of signing keys, with the agents that have confirmed it; raises LedgerError and SigningKeyError."""
        if self.is_over_api:
            return self._client
        from broker.fleet.keys_on_ledger import LedgerSigningKeys

        return LedgerSigningKeys(self.signing_keys, self.ledger, now=self.clock)

    @cached_property
    def blobs(self) -> "StoredBlobs":
        """The files that agents fetch; raises LedgerError."""
        if self.is_over_api:
            return self._client
        from broker.fleet.blobs_on_ledger import LedgerBlobs

        return LedgerBlobs(self.ledger.blobs)

    @cached_property
    def access_tokens(self) -> "AccessTokens":
        """The access tokens of the API's users; raises LedgerError."""
        if self.is_over_api:
            return self._client
        from broker.access.access_tokens import AccessTokenStore
        from broker.access.tokens_on_ledger import LedgerAccessTokens

        return LedgerAccessTokens(AccessTokenStore(self.database, now=self.clock), self.origin.name)

    @cached_property
    def operator_certificates(self) -> "OperatorCertificates":
        """The certificates of the API's users; raises LedgerError."""
        if self.is_over_api:
            return self._client
        from broker.access.certificates_on_ledger import LedgerOperatorCertificates
        from broker.access.operator_certificates import OperatorCertificateStore

        return LedgerOperatorCertificates(OperatorCertificateStore(self.database, now=self.clock))

    @cached_property
    def journal_audits(self) -> "JournalAudits":
        """The comparisons of agents' journals with the ledger; raises LedgerError."""
        if self.is_over_api:
            return self._client
        from broker.audit.audits_on_ledger import LedgerAudits
        from broker.ledger.waiting import waiting

        def wait(wait_s: float) -> "Wait":
            return self._stack.enter_context(waiting(self.database, wait_s, self.tell))

        return LedgerAudits(self.ledger, self.origin, wait=wait)

    def diagnosis(self) -> "Diagnosis":
        """Return what the doctor finds on the machine of the API that is named."""
        return self._client.diagnosis()

    @cached_property
    def _client(self) -> "Client":
        """The client of the API, which is the fleet and everything besides that an operator has there."""
        from broker.client.client import Client

        assert self._api is not None
        named = {"ca": self._api.ca, "certificate": self._api.certificate, "key": self._api.key}
        options: dict[str, Any] = {name: Path(file) for name, file in named.items() if file}
        options["trace"] = context_in(os.environ)
        if self._hurries:
            options |= {"attempts": 1, "answer_within_s": _HURRY_S}
        return self._stack.enter_context(Client(self._api.server, self._api.token, tell=self.tell, **options))

    @cached_property
    def database(self) -> "Database":
        """The database of the ledger and the enrolments; raises LedgerError."""
        if self.is_over_api:
            raise needs_ledger("This works")
        from broker.app.factories import open_configured_database

        database = open_configured_database(
            self.config.ledger,
            create=self._creates_ledger,
            read_only=self._only_reads,
            tell=self.tell,
        )
        return self._stack.enter_context(database)

    @cached_property
    def ledger(self) -> "Ledger":
        """The ledger; raises LedgerError."""
        from broker.ledger.ledger import Ledger

        return Ledger(self.database, now=self.clock)

    @cached_property
    def clock(self) -> "LedgerClock":
        """The clock that decides what expires: that of the ledger's database; raises LedgerError."""
        from broker.app.factories import utc_now
        from broker.ledger.clock import LedgerClock

        clock = LedgerClock(self.database, utc_now)
        if clock.warning is not None:
            self.tell(clock.warning)
        return clock

    @cached_property
    def enrolment_store(self) -> "EnrolmentStore":
        """The enrolments in the ledger's database; raises LedgerError."""
        from broker.enrolment.store import EnrolmentStore

        return EnrolmentStore(self.database, now=self.clock)

    @cached_property
    def authority(self) -> "CertificateAuthority":
        """The certificate authority; raises AuthorityError."""
        from broker.app.credentials import open_authority

        return open_authority(self.config)

    @cached_property
    def signing_keys(self) -> "SigningKeyStore":
        """The list of signing keys, without the private ones; raises SigningKeyError."""
        from broker.app.credentials import open_signing_key_store

        return open_signing_key_store(self.config)

    @staticmethod
    def tell(text: str) -> None:
        """Tell the user on stderr what is unusual."""
        print_text(f"acm: {text}", to_stderr=True)
