"""The steps before the swap: fetch the content, stage it, check it, and make it a generation that is not active yet."""

from collections.abc import Collection

from broker.contract.commands.apply_centralized_configuration import ApplyCentralizedConfiguration
from broker.contract.messages import Command
from broker.system.files import inodes_named
from consumer.configuration.apply_journal import ApplyJournal
from consumer.configuration.diff import difference
from consumer.configuration.effects import Effects
from consumer.configuration.found_files import hash_of_file, names_below
from consumer.configuration.generations import Generations, Record
from consumer.configuration.staging import Staging, sha256_of
from consumer.configuration.validation import fill_paths, validate
from consumer.errors import CentralizedConfigurationError
from consumer.handler import Context
from consumer.settings import AgentConfig

__all__ = [
    "active_if_unchanged",
    "prepare",
]


def active_if_unchanged(
    wanted: ApplyCentralizedConfiguration, config: AgentConfig, generations: Generations
) -> Record | None:
    """Return the active generation if it has the wanted content and has not been altered; otherwise None."""
    record = generations.known(generations.current)
    if record is None or (record.sha256, record.file) != (sha256_of(wanted), _file(wanted, config)):
        return None
    return None if generations.altered(record) else record


def prepare(
    command: Command,
    wanted: ApplyCentralizedConfiguration,
    context: Context,
    config: AgentConfig,
    generations: Generations,
    effects: Effects,
) -> ApplyJournal:
    """Make a checked and durable generation and return its journal; raises ConsumerError and OSError."""
    file = _file(wanted, config)
    if generations.is_blocked:
        raise CentralizedConfigurationError(
            f"{generations.link} is not a link, so that no generation can become active: move it away.",
            code="current_not_a_link",
        )
    root = config.configuration_root
    with Staging(root, context.leftovers) as staging, inodes_named(root):
        downloader = context.downloader()
        received = staging.receive(wanted, downloader)
        context.observer.reached(f"{command.type}.downloaded")
        staging.arrange(wanted, received, file)
        context.observer.reached(f"{command.type}.staged")
        delivered = names_below(staging.files)
        _refuse_missing_programs(config, staging, file, effects)
        validate(staging.files, file, config.configuration, context.bounds(), effects.run)
        context.observer.reached(f"{command.type}.validated")
        hashes = _hashes_after_check(staging, delivered, context)
        _check_time(context)
        sha256 = sha256_of(wanted)
        record = Record(
            name=generations.next_name(sha256),
            sha256=sha256,
            group=wanted.group,
            file=file,
            made_at=context.clock.now(),
            command_id=command.id,
            files=hashes,
            sizes={name: (staging.files / name).stat().st_size for name in hashes},
        )
        journal = _first_journal(record, context, generations, staging)
        generations.add(staging.files, record)
        _check_time(context)  # fsync may have taken long; the next prune deletes the generation
        return journal


def _hashes_after_check(staging: Staging, delivered: Collection[str], context: Context) -> dict[str, str]:
    """Return the hash of each file as the check has left it; other files that it has made are removed."""
    made = names_below(staging.files).keys() - set(delivered)
    context.leftovers.remove_all(staging.files / name for name in made)
    try:
        return {name: hash_of_file(staging.files / name) for name in sorted(delivered)}
    except OSError as error:
        raise CentralizedConfigurationError(
            f"After the check, {error.filename} cannot be read: {error.strerror}.", code="not_staged"
        ) from error


def _refuse_missing_programs(config: AgentConfig, staging: Staging, file: str, effects: Effects) -> None:
    """Raise CentralizedConfigurationError if a program that is needed after the swap is missing."""
    settings = config.configuration
    reload = settings.reload_command if settings.reload == "command" else ()
    for argv in (reload, settings.health_check):
        missing = effects.missing(fill_paths(argv, staging.files, file)[0]) if argv else None
        if missing is not None:
            raise CentralizedConfigurationError(f"The configuration was not tried: {missing}.", code="program_missing")


def _first_journal(record: Record, context: Context, generations: Generations, staging: Staging) -> ApplyJournal:
    previous, foreign = generations.current, generations.foreign  # a rollback restores exactly that link
    if previous is not None and not generations.directory(previous).is_dir():
        previous, foreign = None, generations.target
    return ApplyJournal(
        command_id=record.command_id,
        previous=previous,
        next=record.name,
        incarnation=context.service.state().incarnation,
        diff=difference(generations, generations.known(previous), record, staging.files),
        foreign=foreign,
    )


def _file(wanted: ApplyCentralizedConfiguration, config: AgentConfig) -> str:
    return wanted.file or config.configuration.file


def _check_time(context: Context) -> None:
    if context.cancelled.is_set():
        raise CentralizedConfigurationError("The command was cancelled.", code="cancelled")
    if context.clock.monotonic() >= context.deadline:
        raise CentralizedConfigurationError(
            "The command timed out before the configuration became active.", code="timed_out"
        )
