"""The address that the API listens on."""

from broker.errors import BrokerError
from broker.web.addresses import host_and_port, is_loopback

__all__ = [
    "ApiAddressError",
    "api_address",
]


class ApiAddressError(BrokerError):
    """The API cannot listen on the address that is configured."""

    code = "api_address_error"


def api_address(listen: str, *, has_tls: bool) -> tuple[str, int]:
    """Return the host and the port of `api_listen`; raises ApiAddressError.

    Tokens would be readable on the way to another machine: without TLS, only an address of this one is taken.
    """
    address = host_and_port(listen)
    if address is None:
        raise ApiAddressError(
            f"api_listen: {listen[:80]!r} is not HOST:PORT, as in 127.0.0.1:8444 or [::1]:8444.",
            code="bad_listen_address",
        )
    host, port = address
    if not has_tls and not is_loopback(host):
        raise ApiAddressError(
            f"api_listen: {host} can be reached from other machines, and the API has no TLS: set api_certificate and "
            "api_key (`acm ca server-certificate` makes them), or use 127.0.0.1 or ::1.",
            code="not_loopback",
        )
    return ("127.0.0.1" if host == "localhost" else host), port
