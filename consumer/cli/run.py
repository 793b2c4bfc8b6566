"""acm-agent run, check-start and check-config. Heavy modules are imported where they are used: --help must be fast."""

import os
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import typer

from broker.system.lean_log import load_structlog_without_rich
from broker.system.service_manager import ServiceManager
from broker.system.signals import on_signals
from broker.text import printable
from consumer.cli.options import AgentOption, BrokerOption, ConfigOption, StateOption, UnsignedOption, agent_flags
from consumer.errors import HandlerTableError

if TYPE_CHECKING:
    from consumer.settings import AgentConfig

__all__ = ["app"]


app = typer.Typer()


@app.command(epilog="Example: acm-agent run --agent web-01 --broker mqtt://127.0.0.1:1883 --state /var/lib/acm")
def run(
    config: ConfigOption = None,
    agent: AgentOption = None,
    broker: BrokerOption = None,
    state: StateOption = None,
    accept_unsigned: UnsignedOption = None,
) -> None:
    """Run the agent until TERM or INT. HUP makes it read its certificate and `log_level` again."""
    load_structlog_without_rich()
    import structlog

    from broker.system.logging import configure_logs, reload_log_level
    from consumer.agent import Agent
    from consumer.config import merge_sources, origins, read_sources, unused_values
    from consumer.plugins import load_plug_ins
    from consumer.replacement import RESTARTED_BY, StartTest, replace_process, take_secrets
    from consumer.upgrade.watcher import is_watched

    flags = agent_flags(agent, broker, state, accept_unsigned)
    environment = dict(os.environ)
    with on_signals() as signals:
        sources = read_sources(config, flags)
        settings = merge_sources(sources)
        configure_logs(settings.log_level)
        for name in unused_values(sources):
            structlog.get_logger(__name__).warning("configured_value_not_used", name=name, decided_by="enrolment")
        _refuse_exposed_release(settings)
        secrets = take_secrets()
        watched = is_watched(settings, sys.argv[1:], secrets)
        restarted_by = os.environ.pop(RESTARTED_BY, None)
        running = Agent(
            settings,
            plug_ins=load_plug_ins(),
            origins=origins(sources),
            restarted_by=restarted_by,
            service_manager=ServiceManager(monotonic, {**os.environ, **secrets}),
            test_replacement=None if watched else StartTest(secrets),
        )

        def reload() -> None:
            reload_log_level(lambda: merge_sources(read_sources(config, flags, environment)).log_level)
            running.reload()

        signals.deliver(running.stop, reload)
        replacement = running.run()
    if replacement is not None and not watched and not running.stop_requested:
        replace_process(replacement, secrets)


@app.command("check-start", hidden=True)
def check_start_options(
    config: ConfigOption = None,
    agent: AgentOption = None,
    broker: BrokerOption = None,
    state: StateOption = None,
    accept_unsigned: UnsignedOption = None,
) -> None:
    """Check that `run` would start with these options; an agent runs this before its process is replaced."""
    from consumer.agent import check_start
    from consumer.config import load_config
    from consumer.plugins import load_plug_ins
    from consumer.self_test import load_all_modules

    load_all_modules()
    settings = load_config(config, agent_flags(agent, broker, state, accept_unsigned))
    _refuse_exposed_release(settings)
    load_plug_ins()
    check_start(settings)


def _refuse_exposed_release(settings: "AgentConfig") -> None:
    from consumer.upgrade.installation import Installation

    if settings.upgrade.root is not None:
        Installation(Path(settings.upgrade.root)).refuse_exposed()


@app.command("check-config", epilog="Example: acm-agent check-config --config agent.toml")
def check_config(
    config: ConfigOption = None,
    agent: AgentOption = None,
    broker: BrokerOption = None,
    state: StateOption = None,
) -> None:
    """Check the configuration and the installed plug-ins; warn of what they lack on this machine."""
    from consumer.active_response.allow_list import AllowList
    from consumer.config import load_config
    from consumer.doctor.shortcomings import missing_enrolment, shortcomings
    from consumer.plugins import load_plug_ins

    settings = load_config(config, agent_flags(agent, broker, state))
    if settings.active_response.directory:
        AllowList.load(settings.active_response)
    _refuse_exposed_release(settings)
    plug_ins = load_plug_ins()
    if plug_ins.problem:
        raise HandlerTableError(plug_ins.problem)
    typer.echo(f"The configuration of {settings.agent} is valid.")
    for handler in plug_ins.handlers:
        replaced = " in place of the built-in one" if handler.replaces else ""
        typer.echo(f"A plug-in adds {handler.command_type}{replaced}.")
    for sentence in filter(None, (missing_enrolment(settings), *shortcomings(settings))):
        typer.echo(printable(f"acm-agent: warning: {sentence}"), err=True)
