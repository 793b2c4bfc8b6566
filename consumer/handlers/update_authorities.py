"""update-authorities: trust these authorities of the broker and the enrolment server, and no others."""

from broker.contract.commands.update_authorities import UPDATE_AUTHORITIES, UpdateAuthorities, UpdateAuthoritiesData
from broker.contract.messages import Command
from consumer.enrolment.store import EnrolmentDirectory
from consumer.handler import Context, Handler, Interruption, Result

__all__ = [
    "HANDLER",
]


def _execute(command: Command, parameters: UpdateAuthorities, context: Context) -> Result:
    """Replace the authorities of the current enrolment; the next connection uses them."""
    from consumer.enrolment.authorities import trust_authorities  # with the certificates of cryptography: 2 MB

    fingerprints = trust_authorities(EnrolmentDirectory(context.state), parameters.certificates)
    return Result(
        f"The agent trusts these authorities, and no others: {', '.join(it[:16] for it in fingerprints)}.",
        UpdateAuthoritiesData(fingerprints),
    )


HANDLER = Handler(UPDATE_AUTHORITIES, Interruption.RERUN, UpdateAuthorities, _execute)
