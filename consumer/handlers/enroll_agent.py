"""enroll-agent: enroll with this or another server; the agent switches once the new enrolment has carried a result."""

import threading
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol

from broker.contract.commands import parse_parameters
from broker.contract.commands.enroll_agent import EnrollAgent, EnrollAgentData
from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from broker.errors import ExposedFileError
from consumer.enrolment.store import AttemptState, Enrolment, EnrolmentAttempt, EnrolmentDirectory
from consumer.errors import ConsumerError, EnrolmentError
from consumer.handler import Context, Handler, Interruption, ReplacementTest, Result
from consumer.ports import StoredCommand

__all__ = [
    "EnrolmentSwitch",
    "handler",
]


class EnrolmentSwitch(Protocol):
    """Switches the agent to another enrolment: first on trial, then permanently."""

    def try_out(self, enrolment: Enrolment, deadline: float, cancelled: threading.Event) -> None:
        """Carry one result over the new enrolment while the agent's own connection is down, then reconnect.

        Raises EnrolmentError if no server has acknowledged the result by the deadline, or if cancelled.
        """

    def schedule_switch(self, attempt: EnrolmentAttempt) -> None:
        """Schedule, durably, the switch to this attempt's enrolment once its command's result is delivered.

        Raises EnrolmentError if that cannot be stored durably; then no switch is scheduled.
        """


def handler(
    agent: str, relocation: EnrolmentSwitch, test_replacement: ReplacementTest | None = None
) -> Handler[EnrollAgent]:
    """Return the handler for the agent of this name, which `relocation` moves to its new enrolment.

    It refuses, before it uses the token, if the process that would use the new enrolment does not start.
    """
    return Handler(
        "enroll-agent",
        Interruption.PROBE,
        EnrollAgent,
        partial(_execute_tested, agent, relocation, test_replacement),
        partial(_probe, agent, relocation),
    )


def _execute_tested(
    agent: str,
    relocation: EnrolmentSwitch,
    test_replacement: ReplacementTest | None,
    command: Command,
    parameters: EnrollAgent,
    context: Context,
) -> Result:
    refused = None if test_replacement is None else test_replacement(context)
    return refused or _execute(agent, relocation, command, parameters, context)


def _execute(
    agent: str, relocation: EnrolmentSwitch, command: Command, parameters: EnrollAgent, context: Context
) -> Result:
    from consumer.enrolment.client import EnrolmentClient  # its HTTP client is 3 MB
    from consumer.enrolment.enroll import obtain, parse_token

    enrolments = EnrolmentDirectory(context.state)
    client = EnrolmentClient(parameters.server, context.clock, context.deadline, context.cancelled)
    enrolment = obtain(
        enrolments,
        client,
        parse_token(parameters.token),
        agent,
        on_key=lambda: context.observer.reached("enroll-agent.keyed"),
    )
    attempt = EnrolmentAttempt(command.id, enrolment.directory.name, enrolment.grant, AttemptState.STAGED)
    _record(enrolments, attempt, context)
    attempt = replace(attempt, state=AttemptState.TRIAL)
    _record(enrolments, attempt, context)
    try:
        _try_out(relocation, enrolment, attempt, context)
    except (ConsumerError, ExposedFileError) as error:
        return _roll_back(enrolments, attempt, str(error), context.failure_code())
    return _success(attempt)


def _record(enrolments: EnrolmentDirectory, attempt: EnrolmentAttempt, context: Context) -> None:
    enrolments.record(attempt)
    context.observer.reached(f"enroll-agent.{attempt.state}")


def _try_out(relocation: EnrolmentSwitch, enrolment: Enrolment, attempt: EnrolmentAttempt, context: Context) -> None:
    relocation.try_out(enrolment, context.deadline, context.cancelled)
    if context.clock.monotonic() >= context.deadline:
        raise EnrolmentError("The new enrolment carried a result too late.", code="timed_out")
    relocation.schedule_switch(attempt)
    context.observer.reached("enroll-agent.carried")


def _roll_back(enrolments: EnrolmentDirectory, attempt: EnrolmentAttempt, reason: str, code: ErrorCode) -> Result:
    enrolments.record(replace(attempt, state=AttemptState.ROLLED_BACK, reason=reason))
    enrolments.remove(attempt.name)
    return _failure(attempt, reason, code)


def _success(attempt: EnrolmentAttempt) -> Result:
    return Result(
        f"The new enrolment carried a result; the agent switches to it at {attempt.grant.broker} once this result is "
        "acknowledged.",
        _data(attempt, "carried"),
    )


def _failure(attempt: EnrolmentAttempt, reason: str, code: ErrorCode) -> Result:
    return Result(f"{reason} The agent keeps its previous enrolment.", _data(attempt, "rolled_back"), code)


def _data(attempt: EnrolmentAttempt, state: Literal["carried", "rolled_back"]) -> EnrollAgentData:
    grant = attempt.grant
    return EnrollAgentData(grant.enrolment_id, grant.server, grant.broker, state)


def _probe(agent: str, relocation: EnrolmentSwitch, stored: StoredCommand, context: Context) -> Result:
    """Report the outcome of a decided attempt; resume an undecided one with the same key and enrolment."""
    attempt = EnrolmentDirectory(context.state).attempt()
    if attempt is not None and attempt.command_id == stored.command.id:
        if attempt.state in (AttemptState.CARRIED, AttemptState.COMMITTED):
            return _success(attempt)
        if attempt.state is AttemptState.ROLLED_BACK:
            return _failure(attempt, attempt.reason or "", ErrorCode.FAILED)
    command = stored.command
    foreign_form = command.original is not None
    parameters = parse_parameters(command.type, EnrollAgent, command.parameters, foreign_form=foreign_form)
    return _execute(agent, relocation, command, parameters, context)
