"""update-signing-keys: trust these signing keys of the server, and no others."""

from functools import partial

from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS, UpdateSigningKeys, UpdateSigningKeysData
from broker.contract.dsse import SignatureError
from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from consumer.handler import Context, Handler, Interruption, Result, check_expiry
from consumer.trust.ports import TrustedKeys

__all__ = [
    "handler",
]


def handler(trusted_keys: TrustedKeys) -> Handler[UpdateSigningKeys]:
    """Return the handler that updates these trusted keys."""
    return Handler(UPDATE_SIGNING_KEYS, Interruption.RERUN, UpdateSigningKeys, partial(_execute, trusted_keys))


def _execute(trusted_keys: TrustedKeys, command: Command, parameters: UpdateSigningKeys, context: Context) -> Result:
    """Report which keys are trusted: the receiver applied them when the command arrived, unless the disk failed."""
    expired = check_expiry(command, context.clock.now())
    if expired is not None and (trusted_keys.version or 0) < parameters.version:
        return expired
    try:
        trusted_keys.update(parameters)
    except SignatureError as error:
        return Result(f"{error} The trusted keys are unchanged.", code=ErrorCode.INVALID)
    data = UpdateSigningKeysData(trusted_keys.version or 0, tuple(trusted_keys.key_ids))
    if data.version > parameters.version:
        return Result("The agent already trusts a newer list of signing keys; nothing was changed.", data)
    return Result(f"The agent trusts these signing keys, and no others: {', '.join(data.keys)}.", data)
