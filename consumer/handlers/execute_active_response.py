"""execute-active-response: run a script of the allow-list on an alert, and reverse its effect after a timeout."""

from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Literal

from broker.contract.commands.execute_active_response import ExecuteActiveResponse, ExecuteActiveResponseData
from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from consumer.active_response.protected_targets import ProtectedTargetError
from consumer.active_response.records import ResponseRecord
from consumer.active_response.responses import ActiveResponses, Attempt
from consumer.active_response.wazuh_protocol import Request
from consumer.handler import Context, Handler, Interruption, Result
from consumer.ports import StoredCommand
from consumer.settings import ServiceConfig

__all__ = [
    "handler",
]


State = Literal["active", "renewed", "done", "not_added", "uncertain"]  # of a script that was run
_MAX_KEYS_LENGTH = 200


def handler(responses: ActiveResponses, service: ServiceConfig) -> Handler[ExecuteActiveResponse]:
    """Return the handler that runs scripts with `responses` and passes the managed service's identity to them."""
    return Handler(
        "execute-active-response",
        Interruption.PROBE,
        ExecuteActiveResponse,
        partial(_execute, responses, service),
        partial(_probe, responses),
    )


def _execute(
    responses: ActiveResponses,
    service: ServiceConfig,
    command: Command,
    parameters: ExecuteActiveResponse,
    context: Context,
) -> Result:
    request = Request(
        command.id,
        parameters.script,
        parameters.alert,
        parameters.extra_args,
        parameters.timeout_s,
        command.origin.name,
    )
    bounds = context.bounds().as_agent()
    try:
        attempt = responses.run(request, bounds, _service(service, context))
    except ProtectedTargetError as error:
        return Result(str(error), ExecuteActiveResponseData(request.script, "protected"), ErrorCode.FAILED)
    return _result(request.script, attempt, context)


def _service(service: ServiceConfig, context: Context) -> dict[str, str]:
    """Return the environment that identifies the managed service, for a script that restarts it."""
    if service.kind == "systemd":
        return {"ACM_SERVICE_KIND": "systemd", "ACM_SERVICE_UNIT": service.unit or ""}
    if service.kind == "child":
        pid = (context.service.state().detail or {}).get("pid", "")
        return {"ACM_SERVICE_KIND": "child", "ACM_SERVICE_PID": str(pid)}
    return {"ACM_SERVICE_KIND": "none"}


def _probe(responses: ActiveResponses, stored: StoredCommand, context: Context) -> Result:
    """Return the result from the record; without one, the script had not received `continue`."""
    entry = responses.after_crash(stored.command.id)
    if entry is None:
        script = str(stored.command.parameters.get("script", ""))
        message = (
            "The agent died before the script received `continue`, and nothing will be reversed; "
            "a script that names no keys may have had an effect anyway."
        )
        return Result(message, ExecuteActiveResponseData(script, "not_added"), ErrorCode.INTERRUPTED)
    if entry.confirmed:
        return Result(_success(entry.script, entry), _data(entry, entry.state))
    message = f"The agent died after {entry.script} received `continue`; {_reversal_text(entry)}."
    return Result(message, _data(entry, "uncertain"), ErrorCode.INTERRUPTED)


def _result(script: str, attempt: Attempt, context: Context) -> Result:
    ended, entry = attempt.ended, attempt.record
    good = ended.good
    if entry is None:
        data = ExecuteActiveResponseData(script, "done" if good else "not_added")
    else:
        data = _data(entry, entry.state if entry.confirmed else "uncertain")
    message = _success(script, entry) if good else _error(script, attempt)
    return Result(message, replace(data, exit_status=ended.exit_status), _code(attempt, context), ended.output)


def _data(entry: ResponseRecord, state: State) -> ExecuteActiveResponseData:
    reverses_at = entry.reversal.due_at if entry.reversal else None
    return ExecuteActiveResponseData(entry.script, state, entry.keys, None, reverses_at, entry.offence)


def _success(script: str, entry: ResponseRecord | None) -> str:
    if entry is None:
        return f"{script} succeeded; it named no keys, so nothing will be reversed."
    keys = _for_keys(entry)
    if entry.reversed_at is not None:
        return f"{script} succeeded{keys} and was reversed at {_time(entry.reversed_at)}."
    if entry.reversal is None:
        return f"{script} succeeded{keys}; it has no timeout, so nothing will be reversed."
    until = _time(entry.reversal.due_at)
    if entry.state == "renewed":
        return f"{script} was already active{keys}; it was renewed until {until}."
    return f"{script} is active{keys} until {until}."


def _error(script: str, attempt: Attempt) -> str:
    how = attempt.ended.in_words()
    if attempt.record is None:
        waits = " It has printed no line: a script must not read its input to the end before it answers."
        hint = waits if attempt.ended.overdue else ""
        return f"{script} {how} before it received `continue`; nothing will be reversed.{hint}"
    answer = "abort" if attempt.record.confirmed else "continue"
    return f"{script} received `{answer}` and {how}; {_reversal_text(attempt.record)}."


def _reversal_text(entry: ResponseRecord) -> str:
    if entry.reversed_at is not None:
        return f"its possible effect was reversed at {_time(entry.reversed_at)}"
    if entry.reversal is None:
        return "nothing will be reversed"
    return f"its possible effect is reversed at {_time(entry.reversal.due_at)}"


def _for_keys(entry: ResponseRecord) -> str:
    keys = ", ".join(entry.keys)
    return f" for {keys[:_MAX_KEYS_LENGTH]}" if keys else ""


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _code(attempt: Attempt, context: Context) -> ErrorCode | None:
    if attempt.ended.overdue:
        return ErrorCode.CANCELLED if context.cancelled.is_set() else ErrorCode.TIMED_OUT
    return None if attempt.ended.good else ErrorCode.FAILED
