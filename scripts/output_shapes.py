"""The JSON that each command of acm and acm-agent prints with --json, for `scripts.output_schema`.

A test compares the shapes with what the commands print. Times are in UTC; sizes are in bytes.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict

from broker.access.models import AccessTokenView, CreatedAccessToken, OperatorCertificateView
from broker.contract.artifacts import Artifact
from broker.contract.messages import JsonObject, RunningProgress
from broker.fleet.enrolment_models import CreatedEnrolmentToken, EnrolmentTokenView, EnrolmentView
from broker.fleet.explanation import CommandTimeline
from broker.fleet.models import AgentView, CommandView, EventView, GroupView, OperationView
from broker.fleet.report_models import AuditVerdict

__all__ = ["OUTPUTS", "ErrorLine"]

Id = str
Path = str


class ErrorDetail(TypedDict):
    """What was wrong: a stable code, one sentence for people, and the exit code."""

    code: str
    message: str
    exit_code: int


class ErrorLine(TypedDict):
    """The last line on stderr of a command that did not succeed."""

    error: ErrorDetail


class Finding(TypedDict):
    """What one check of a doctor has found; `fix` is null exactly for the code `ok`."""

    check: str
    level: Literal["ok", "warn", "fail"]
    code: str
    found: str
    fix: str | None


class AgentEnrolment(TypedDict):
    """An agent's enrolment, as its state directory has it."""

    agent: str
    enrolment_id: Id
    server: str
    broker: str
    topic_prefix: str
    not_after: datetime
    renew_at: datetime
    expired: bool


class AgentProcess(TypedDict):
    """What the process that ran last has written of itself; `end` is why it ended, null if it was stopped."""

    pid: int
    version: str
    incarnation: str
    started_at: datetime
    written_at: datetime
    age_s: float
    clock_behind_s: int | None
    ended_at: datetime | None
    end: str | None


class AgentConnection(TypedDict):
    """Whether the agent that runs is connected, since when, and why not."""

    connected: bool
    broker: str
    since: datetime
    reason: str | None


class QueueCounts(TypedDict):
    """How many commands the agent holds in each state."""

    accepted: int
    running: int
    completed: int


class RunningCommand(TypedDict):
    """A command that has begun; `progress` is null if its handler reports none, or no agent runs."""

    id: Id
    type: str
    started_at: datetime | None
    progress: RunningProgress | None


class AgentStore(TypedDict):
    """The command store and its journal, which goes from `journal_first` to `journal_last`."""

    store_generation: str
    epoch: int | None
    last_sequence: int | None
    journal_first: int
    journal_last: int
    bytes: int


class Incident(TypedDict):
    """An error of the agent; `until` is null while it lasts."""

    text: str
    since: datetime
    until: datetime | None


class AgentStatus(TypedDict):
    """What the agent on this machine does. What cannot be read is null, and named in `unreadable`."""

    agent: str | None
    state_directory: Path
    running: bool | None
    pid: int | None
    process: AgentProcess | None
    connection: AgentConnection | None
    enrolment: AgentEnrolment | None
    queue: QueueCounts | None
    running_commands: list[RunningCommand] | None
    store: AgentStore | None
    incidents: list[Incident]
    unreadable: list[str]


class QueuedCommand(TypedDict):
    """A command that the agent holds."""

    id: Id
    type: str
    state: Literal["accepted", "running", "completed"]
    received_at: datetime
    outcome: Literal["success", "error"] | None


class JournalEvent(TypedDict):
    """What happened to a command, or to the store; an `unreadable` entry has nothing but its number."""

    number: int
    at: datetime | None
    event: Literal["opened", "accepted", "begun", "resumed", "reported", "deleted", "unreadable"]
    command_id: Id | None
    detail: str | None


class JournalEnd(TypedDict):
    """Where the journal begins and ends, and what is wrong with its hash chain."""

    number: int
    hash: str
    first: int
    fault: str | None


class PendingReversal(TypedDict):
    """An effect of an active response that will be reversed, in the agent's own record."""

    script: str
    keys: list[str]
    reverses_at: datetime
    confirmed: bool
    offence: int
    attempts: int
    failure: str | None
    command_id: Id


class Blob(TypedDict):
    """A stored file."""

    url: str
    sha256: str
    size: int
    file_name: str
    added_at: datetime


class Authority(TypedDict):
    """A certificate authority."""

    directory: Path
    fingerprint: str


class CertificatePair(TypedDict):
    """A certificate and its private key, as files."""

    certificate: Path
    key: Path
    not_after: datetime


class RevocationList(TypedDict):
    """A revocation list, as a file."""

    crl: Path
    next_update: datetime


class Rollover(TypedDict):
    """How far the agents have moved to the authority's successor; `trusted` are certificates in PEM."""

    in_progress: bool
    fingerprint: str
    trusted: str
    moved: list[str]
    not_moved: list[str]


class BegunRollover(Rollover):
    """A rollover that was begun, and the operation that announces it."""

    operation: Id | None


class FinishedRollover(TypedDict):
    """The new authority, and the operation that announces it alone."""

    fingerprint: str
    operation: Id | None


class SigningKey(TypedDict):
    """A key that signs messages to agents; `public` is its public key."""

    id: str
    state: str
    created_at: datetime
    revoked_at: datetime | None
    public: str


class SigningKeys(TypedDict):
    """The list of signing keys, and which agents have confirmed it."""

    version: int
    announced: bool
    agents: int
    confirmed: int
    not_confirmed: list[str]
    keys: list[SigningKey]


class CreatedSigningKeys(TypedDict):
    """A new directory of signing keys, and the id of its first key."""

    directory: Path
    id: str


class ChangedSigningKeys(TypedDict):
    """The key that was added or revoked, and the operation that distributes the new list to so many agents."""

    id: str | None
    version: int
    operation: Id | None
    agents: int


class BrokerFiles(TypedDict):
    """The files that were written, and those that existed before."""

    settings: Path
    not_after: datetime
    made: list[Path]
    kept: list[Path]


class LedgerContents(TypedDict):
    """What a ledger has, and the size of its file."""

    commands: int
    agents: int
    size: int


class LedgerBackup(LedgerContents):
    """A backup that was written."""

    file: Path


class SettledLedger(TypedDict):
    """How many open commands were completed as interrupted."""

    interrupted: int


class RestoredLedger(LedgerContents):
    """A ledger that was restored; `kept` is where the ledger before it is."""

    interrupted: int
    kept: Path | None


class DamagedRow(TypedDict):
    """A damaged row; `found_at` is null while it is in its table."""

    table: str
    key: str
    agent: str
    reason: str
    content: str
    found_at: datetime | None


class RefusedMessage(TypedDict):
    """A message of an agent that the database refuses."""

    agent: str
    channel: str
    command_id: Id | None
    reason: str
    content: str
    received_at: datetime | None


class Pruned(TypedDict):
    """How much was removed, or would be with --dry-run."""

    commands: int
    operations: int
    unmatched_results: int
    agents: int
    tokens: int
    certificates: int
    dry_run: bool
    free_bytes: int


class UnmatchedResult(TypedDict):
    """A result that answers no open command."""

    agent: str
    command_id: Id
    digest: str
    received_at: datetime
    result: JsonObject


class ActiveResponse(TypedDict):
    """An active response that is in effect and will be reversed, as its agent reports it."""

    agent: str
    script: str
    keys: list[str]
    command_id: Id
    state: str
    reverses_at: datetime


class CommandType(TypedDict):
    """A command type: its parameters and its result's data as JSON Schemas, which refer to `definitions`."""

    type: str
    summary: str
    parameters: JsonObject
    data: JsonObject
    definitions: JsonObject


class Package(TypedDict):
    """A package that was built."""

    package: Path
    name: str
    version: str
    platform: str
    files: int
    unpacked_bytes: int


class VerifiedPackage(TypedDict):
    """A package whose signature and files are as they should be."""

    name: str
    version: str
    platform: str
    files: int
    unpacked_bytes: int
    signed_by: str
    trusted_comment: str
    sha256: str
    size: int


class SentCommands(TypedDict):
    """What was sent: one command or many, their counts by state, and their operation, null for a single command."""

    operation: OperationView | None
    counts: dict[str, int]
    commands: list[CommandView]


class ShownCommands(SentCommands):
    """A command or an operation; what its agent reports last is there of a single command that has not ended."""

    agent_last_error: str | None
    running_progress: RunningProgress | None


class SendPlan(TypedDict):
    """What would be sent to which agents, with --dry-run."""

    dry_run: bool
    type: str
    parameters: JsonObject
    agents: list[str]
    expires_in_s: float | None
    timeout_s: float | None


class CancelledOperation(TypedDict):
    """How many open commands of an operation were cancelled or abandoned."""

    id: Id
    count: int


class ForgottenAgent(TypedDict):
    """An agent that was forgotten, and how many of its open commands were completed as interrupted."""

    agent: str
    interrupted: int


@dataclass(frozen=True)
class CreatedOperatorCertificate(OperatorCertificateView):
    """A new certificate of an operator and its private key, as files."""

    certificate: Path
    key: Path


class Context(TypedDict):
    """Where commands go over the API: a server's URL, and the file of the authority that is trusted for it.

    With a certificate and its key, these files prove who the user is, instead of a token.
    """

    name: str
    current: bool
    server: str
    ca: Path | None
    certificate: Path | None
    key: Path | None


OUTPUTS: dict[str, Any] = {
    "acm agents": list[AgentView],
    "acm agents forget": ForgottenAgent,
    "acm agents show": AgentView,
    "acm api certificate create": CreatedOperatorCertificate,
    "acm api certificate list": list[OperatorCertificateView],
    "acm api certificate revoke": OperatorCertificateView,
    "acm api token create": CreatedAccessToken,
    "acm api token list": list[AccessTokenView],
    "acm api token revoke": AccessTokenView,
    "acm cancel": CommandView,
    "acm commands": list[CommandView],
    "acm context list": list[Context],
    "acm context show": Context,
    "acm enrolment list": list[EnrolmentView],
    "acm enrolment revoke": list[EnrolmentView],
    "acm events": list[EventView],
    "acm explain": CommandTimeline,
    "acm group add": GroupView,
    "acm group configure": OperationView,
    "acm group list": list[GroupView],
    "acm group remove": GroupView,
    "acm group show": GroupView,
    "acm operation cancel": CancelledOperation,
    "acm operation list": list[OperationView],
    "acm operation show": SentCommands,
    "acm retry": SentCommands,
    "acm send": (SentCommands, SendPlan),
    "acm show": ShownCommands,
    "acm token create": CreatedEnrolmentToken,
    "acm token list": list[EnrolmentTokenView],
    "acm token revoke": EnrolmentTokenView,
    "acm active-responses": list[ActiveResponse],
    "acm audit accept": AuditVerdict,
    "acm audit verify": AuditVerdict,
    "acm blob list": list[Blob],
    "acm blob put": Artifact,
    "acm blob rm": Blob,
    "acm broker config": BrokerFiles,
    "acm ca client-certificate": CertificatePair,
    "acm ca crl": RevocationList,
    "acm ca init": Authority,
    "acm ca rollover begin": BegunRollover,
    "acm ca rollover finish": FinishedRollover,
    "acm ca rollover status": Rollover,
    "acm ca server-certificate": CertificatePair,
    "acm doctor": list[Finding],
    "acm keys init": CreatedSigningKeys,
    "acm keys list": SigningKeys,
    "acm keys revoke": ChangedSigningKeys,
    "acm keys rotate": ChangedSigningKeys,
    "acm ledger backup": LedgerBackup,
    "acm ledger check": LedgerContents,
    "acm ledger damaged": list[DamagedRow],
    "acm ledger refused": list[RefusedMessage],
    "acm ledger restore": RestoredLedger,
    "acm ledger restored": SettledLedger,
    "acm package build": Package,
    "acm package verify": VerifiedPackage,
    "acm prune": Pruned,
    "acm types": list[CommandType],
    "acm unmatched": list[UnmatchedResult],
    "acm-agent active-responses": list[PendingReversal],
    "acm-agent audit": JournalEnd,
    "acm-agent doctor": list[Finding],
    "acm-agent enroll": AgentEnrolment,
    "acm-agent enrolment": AgentEnrolment,
    "acm-agent journal": list[JournalEvent],
    "acm-agent queue": list[QueuedCommand],
    "acm-agent status": AgentStatus,
}
"""By the command. `acm send` has a second shape, for `--dry-run`."""
