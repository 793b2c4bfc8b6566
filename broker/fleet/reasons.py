"""Why an open command waits, and what to do: a stable code, a sentence and an advice for each reason.

docs/operations.md has the same table for operators; a test compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

__all__ = [
    "EXPLANATIONS",
    "Explanation",
    "Reason",
]


class Reason(StrEnum):
    """The reasons, in the order in which they are looked for: the first that applies is the explanation."""

    SERVER_DOWN = "server_down"
    SERVER_STOPPED = "server_stopped"
    BROKER_UNREACHABLE = "broker_unreachable"
    SERVER_HANGS = "server_hangs"
    EXPIRED = "expired"
    REVOKED = "revoked"
    CERTIFICATE_ENDED = "certificate_ended"
    NOT_ENROLLED = "not_enrolled"
    STATUS_UNKNOWN = "status_unknown"
    NAME_CONFLICT = "name_conflict"
    NEVER_CONNECTED = "never_connected"
    CLOCK_OFF = "clock_off"
    AGENT_OFFLINE = "agent_offline"
    OFFLINE_WITH_IT = "offline_with_it"
    AGENT_SILENT = "agent_silent"
    STORE_LOCKED = "store_locked"
    DISK_FULL = "disk_full"
    NOT_SENT_YET = "not_sent_yet"
    MESSAGE_REFUSED = "message_refused"
    CONNECTION_PROBLEM = "connection_problem"
    UNCONFIRMED = "unconfirmed"
    RESULT_UNSENT = "result_unsent"
    OVERDUE = "overdue"
    RUNNING = "running"
    BEHIND_ANOTHER = "behind_another"
    NEXT = "next"


@dataclass(frozen=True)
class Explanation:
    """Templates (`str.format`) of the sentence that says why, and of what to do: one command or one sentence."""

    why: str
    advice: str


EXPLANATIONS: Mapping[Reason, Explanation] = MappingProxyType(
    {
        Reason.SERVER_DOWN: Explanation(
            "No server runs on this ledger, so nothing is sent and no result is recorded.",
            "Start it: `acm server`.",
        ),
        Reason.SERVER_STOPPED: Explanation(
            "The server (process {pid} on {host}) does not answer: a signal has stopped its process, so nothing is "
            "sent and no result is recorded.",
            "Let it continue, on {host}: `kill -CONT {pid}`.",
        ),
        Reason.BROKER_UNREACHABLE: Explanation(
            "The server (process {pid} on {host}) has had no connection to the broker since {since}: {problem}",
            "Repair what this names, at the broker or in the server's configuration; it connects again by itself.",
        ),
        Reason.SERVER_HANGS: Explanation(
            "The server (process {pid} on {host}) does not answer: the command has been due since {since}, and it has "
            "not taken it.",
            "Look at the server's log, and restart it: `systemctl restart acm-server`.",
        ),
        Reason.EXPIRED: Explanation(
            "It expired at {since} and has not begun, as far as the ledger knows.",
            "Send a new one: this one ends as `expired` by itself.",
        ),
        Reason.REVOKED: Explanation(
            "The enrolment of {agent} was revoked at {since}, so it gets no commands.",
            "If that is to stay, end the command: `acm cancel {id} --abandon`; else enroll the agent again: "
            "`acm token create {agent}`.",
        ),
        Reason.CERTIFICATE_ENDED: Explanation(
            "The certificate of {agent} ended at {since}, so the broker refuses its connection.",
            "Enroll it again with a new token: `acm token create {agent}`.",
        ),
        Reason.NOT_ENROLLED: Explanation(
            "The server holds it: {agent} accepts only signed commands, and is not enrolled with this server.",
            "Enroll it with a new token: `acm token create {agent}`.",
        ),
        Reason.STATUS_UNKNOWN: Explanation(
            "The server holds it: {agent} is not enrolled with this server, and has not reported yet whether it "
            "accepts unsigned commands.",
            "Enroll it with a new token: `acm token create {agent}`.",
        ),
        Reason.NAME_CONFLICT: Explanation(
            "Two clients use the name {agent} and end each other's connection.",
            "Stop one of them, remove its state directory, and enroll it under a name of its own.",
        ),
        Reason.NEVER_CONNECTED: Explanation(
            "{agent} has never reported to this server.",
            "Compare the name with `acm agents`, and start `acm-agent run` on its machine.",
        ),
        Reason.CLOCK_OFF: Explanation(
            "{agent} has been offline since {since}, and its clock was {clock} the server's: with a wrong clock it "
            "takes certificates for ended, or for not yet valid.",
            "Set the clock of its machine.",
        ),
        Reason.AGENT_OFFLINE: Explanation(
            "{agent} has been offline since {since}.",
            "Start `acm-agent run` on its machine; if it runs, its log has the reason.",
        ),
        Reason.OFFLINE_WITH_IT: Explanation(
            "{agent} has stored it, and has been offline since {since}; it continues with it, and reports once it is "
            "back.",
            "Start `acm-agent run` on its machine; if it runs, its log has the reason.",
        ),
        Reason.AGENT_SILENT: Explanation(
            "{agent} counts as connected, but its last status came at {since}: it hangs, or its machine stands still.",
            "Look at its machine and its log, and restart it.",
        ),
        Reason.STORE_LOCKED: Explanation(
            "{agent} can store nothing: {last_error}",
            "End the process that locks its store: `fuser STATE/commands/cache.db`.",
        ),
        Reason.DISK_FULL: Explanation(
            "{agent} accepts no command: {last_error}",
            "Make room on its disk; it continues within seconds.",
        ),
        Reason.NOT_SENT_YET: Explanation(
            "The server is connected and has not sent it yet; open commands of {agent} before it: {before}.",
            "Wait some seconds; if it stays, the server's log has the reason.",
        ),
        Reason.MESSAGE_REFUSED: Explanation(
            "{agent} refuses messages: {last_error}",
            "Repair what this names; if it trusts none of the signing keys, enroll it again: `acm token create "
            "{agent}`.",
        ),
        Reason.CONNECTION_PROBLEM: Explanation(
            "{agent} is online, and its broker does not do all that it needs: {last_error}",
            "Repair what this names at the broker; docs/brokers.md lists what is needed.",
        ),
        Reason.UNCONFIRMED: Explanation(
            "{agent} is online, and has not confirmed that it has stored it; it is sent again {resend}.",
            "Wait; if it stays, the agent's log has the reason.",
        ),
        Reason.RESULT_UNSENT: Explanation(
            "{agent} has ended it, by its last status, and has results whose acks are missing.",
            "Wait; if it stays, the logs of the agent and the server have the reason.",
        ),
        Reason.OVERDUE: Explanation(
            "It has been running on {agent} since {since}, longer than its timeout of {timeout}.",
            "Cancel it: `acm cancel {id}`; if it stays, restart the agent.",
        ),
        Reason.RUNNING: Explanation(
            "It has been running on {agent} since {since}{progress}.",
            "Wait, or cancel it: `acm cancel {id}`.",
        ),
        Reason.BEHIND_ANOTHER: Explanation(
            "{agent} runs {running_type} ({running}) since {since}; open commands before this one: {before}.",
            "Wait, or cancel that one: `acm cancel {running}`.",
        ),
        Reason.NEXT: Explanation(
            "{agent} has stored it and has not reported that it has begun; open commands before it: {before}.",
            "Wait some seconds; if it stays, the agent's log has the reason.",
        ),
    }
)
