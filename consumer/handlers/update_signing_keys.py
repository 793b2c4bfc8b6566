"""update-signing-keys: the server signs with these keys from now on, and with no others."""

from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS, UpdateSigningKeys, UpdateSigningKeysData
from broker.contract.dsse import SignatureError
from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from consumer.handler import Context, Handler, Interruption, Result, expired

__all__ = [
    "HANDLER",
]


def _execute(command: Command, parameters: UpdateSigningKeys, context: Context) -> Result:
    """Report what holds: the receiver has let the keys be trusted when the command came, unless the disk failed."""
    keeper = context.keeper
    late = expired(command, context.clock.now())
    if late is not None and (keeper.version or 0) < parameters.version:
        return late
    try:
        keeper.update(parameters)
    except SignatureError as error:
        return Result(f"{error} The agent trusts what it trusted before.", code=ErrorCode.INVALID)
    data = UpdateSigningKeysData(keeper.version or 0, tuple(keeper.key_ids))
    if data.version > parameters.version:
        return Result("The agent goes by a newer list of signing keys already; nothing was changed.", data)
    return Result(f"The agent trusts these signing keys, and no others: {', '.join(data.keys)}.", data)


HANDLER = Handler(UPDATE_SIGNING_KEYS, Interruption.RERUN, UpdateSigningKeys, _execute)
