"""The table of handlers: one for each command type of the contract, and those that plug-ins or programs add."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from broker.contract.commands import COMMAND_TYPES
from consumer.active_response.responses import ActiveResponses
from consumer.errors import HandlerTableError
from consumer.handler import Handler, ReplacementTest
from consumer.handlers import (
    apply_centralized_configuration,
    enroll_agent,
    execute_active_response,
    fetch_config,
    get_agent_configuration,
    get_audit_journal,
    restart_agent,
    set_group,
    start_agent,
    stop_agent,
    update_authorities,
    update_signing_keys,
    upgrade_agent,
)
from consumer.handlers.enroll_agent import EnrolmentSwitch
from consumer.handlers.restart_agent import AgentProcess
from consumer.ports import ReadinessProblem
from consumer.settings import AgentConfig
from consumer.trust.ports import TrustedKeys
from consumer.upgrade.installation import trial_is_pending

__all__ = [
    "BUILT_IN_TYPES",
    "added_handlers",
    "built_in_handlers",
]


BUILT_IN_TYPES = frozenset(COMMAND_TYPES)


def built_in_handlers(
    config: AgentConfig,
    process: AgentProcess,
    *,
    origins: Mapping[str, str],
    responses: ActiveResponses,
    relocation: EnrolmentSwitch,
    trusted_keys: TrustedKeys,
    readiness_problem: ReadinessProblem,
    test_replacement: ReplacementTest | None = None,
) -> Mapping[str, Handler[Any]]:
    """Return the handlers of BUILT_IN_TYPES by command type, with their dependencies.

    `test_replacement` is for those that replace the process at a point from which they cannot return.
    """
    on_trial = partial(trial_is_pending, config)
    handlers: tuple[Handler[Any], ...] = (
        apply_centralized_configuration.handler(config),
        enroll_agent.handler(config.agent, relocation, test_replacement),
        execute_active_response.handler(responses, config.service),
        fetch_config.HANDLER,
        get_agent_configuration.handler(config, origins),
        get_audit_journal.HANDLER,
        restart_agent.handler(process, config.service.settle_s, on_trial),
        set_group.HANDLER,
        start_agent.handler(on_trial),
        stop_agent.handler(on_trial),
        update_authorities.HANDLER,
        update_signing_keys.handler(trusted_keys),
        upgrade_agent.handler(config.upgrade, readiness_problem, test_replacement),
    )
    return {handler.command_type: handler for handler in handlers}


def added_handlers(handlers: Iterable[Handler[Any]]) -> Mapping[str, Handler[Any]]:
    """Return handlers that are not built in, by command type; one with `replaces` supersedes an earlier one.

    Raises HandlerTableError if two handlers claim one type without `replaces`, or if one has nothing to replace.
    """
    table: dict[str, Handler[Any]] = {}
    for handler in handlers:
        earlier = table.get(handler.command_type)
        claimed = earlier is not None or handler.command_type in BUILT_IN_TYPES
        if handler.replaces and not claimed:
            raise HandlerTableError(
                f"There is no handler for {handler.command_type!r} to replace.", code="nothing_to_replace"
            )
        if claimed and (not handler.replaces or (earlier is not None and earlier.replaces)):
            raise HandlerTableError(
                f"Two handlers claim the command type {handler.command_type!r}; keep one.", code="duplicate_type"
            )
        table[handler.command_type] = handler
    return table
