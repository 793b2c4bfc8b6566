"""update-signing-keys: the server signs with these keys from now on, and with no others."""

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
    """Report what holds: the receiver has let the keys be trusted when the command came, unless the disk failed."""
    late = check_expiry(command, context.clock.now())
    if late is not None and (trusted_keys.version or 0) < parameters.version:
        return late
    try:
        trusted_keys.update(parameters)
    except SignatureError as error:
        return Result(f"{error} The agent trusts what it trusted before.", code=ErrorCode.INVALID)
    data = UpdateSigningKeysData(trusted_keys.version or 0, tuple(trusted_keys.key_ids))
    if data.version > parameters.version:
        return Result("The agent goes by a newer list of signing keys already; nothing was changed.", data)
    return Result(f"The agent trusts these signing keys, and no others: {', '.join(data.keys)}.", data)
