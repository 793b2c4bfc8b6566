"""The agent's HTTPS client, in one place: its trust, and the proxy that the environment names.

`https_proxy` and `all_proxy`, in lower or upper case, name an HTTP proxy; `no_proxy` lists the hosts, domains,
addresses and networks that are reached without it. A variable that cannot be used fails the request with a sentence
that names it.
"""

import contextlib
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import httpx

__all__ = [
    "https_client",
]


_PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_BYPASS_VARIABLES = ("no_proxy", "NO_PROXY")
_PROXY = re.compile(r"(?:(?P<scheme>https?)://)?(?P<authority>[^/?#\s]+)/?", re.IGNORECASE)


def https_client(
    trust: ssl.SSLContext, timeout_s: float, *, environment: Mapping[str, str] = os.environ, **options: Any
) -> httpx.Client:
    """Return a client that trusts what `trust` does; every failure of a request is an httpx.HTTPError.

    `options` are those of httpx.Client. The environment decides about the proxy alone, for each request, also for one
    that was redirected.
    """
    # As for the broker (broker.mqtt.tls): one rule on all versions of Python, which many private authorities meet.
    trust.verify_flags &= ~(ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)
    transport = _Transport(trust, environment)
    return httpx.Client(transport=transport, timeout=timeout_s, trust_env=False, **options)


class _Transport(httpx.BaseTransport):
    """Sends each request to its host, or to the proxy."""

    def __init__(self, trust: ssl.SSLContext, environment: Mapping[str, str]) -> None:
        self._trust = trust
        self._direct = httpx.HTTPTransport(verify=trust, trust_env=False)
        self._proxied: httpx.HTTPTransport | None = None
        self._variable = next((name for name in _PROXY_VARIABLES if environment.get(name)), None)
        self._proxy = environment.get(self._variable or "", "")
        bypassed = next((environment[name] for name in _BYPASS_VARIABLES if environment.get(name)), "")
        self._bypassed = [entry.strip().lower() for entry in bypassed.split(",") if entry.strip()]

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raise httpx.ProxyError, which names the variable, for whatever fails at or behind the proxy."""
        _name_as_certified(request)
        if self._variable is None or _is_bypassed(request.url, self._bypassed):
            return self._direct.handle_request(request)
        try:
            return self._proxy_transport().handle_request(request)
        except (httpx.TransportError, ValueError) as error:
            if isinstance(error, httpx.TimeoutException):
                raise
            reason = str(error) or type(error).__name__
            raise httpx.ProxyError(f"through the proxy that {self._variable} names: {reason}") from error

    def close(self) -> None:
        """Close the connections."""
        self._direct.close()
        if self._proxied is not None:
            self._proxied.close()

    def _proxy_transport(self) -> httpx.HTTPTransport:
        if self._proxied is None:
            proxy = httpx.Proxy(_proxy_url(self._proxy))
            self._proxied = httpx.HTTPTransport(verify=self._trust, trust_env=False, proxy=proxy)
        return self._proxied


def _name_as_certified(request: httpx.Request) -> None:
    """Leave out the final dot of the host's name: certificates have none (RFC 6066 section 3)."""
    host = request.url.host
    if host.endswith("."):
        request.url = request.url.copy_with(host=host.rstrip("."))


def _proxy_url(text: str) -> httpx.URL:
    """Return the URL of an HTTP proxy; raises ValueError, whose text quotes none of it: it may hold a password."""
    parts = _PROXY.fullmatch(text.strip())
    with contextlib.suppress(httpx.InvalidURL, ValueError):
        if parts is not None and (url := httpx.URL(f"{parts['scheme'] or 'http'}://{parts['authority']}")).host:
            return url
    raise ValueError(
        "it is not the URL of an HTTP proxy, http://HOST:PORT; in a password write `#` as %23, `?` as %3F and `/` as "
        "%2F, a blank as %20"
    )


def _is_bypassed(url: httpx.URL, entries: Sequence[str]) -> bool:
    host = url.host.lower().strip("[]")
    return any(_matches(entry, host, url.port or 443) for entry in entries)


def _matches(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of no_proxy is this host, a domain or a network that it is in, or `*`."""
    entry = entry.partition("://")[2] or entry
    if entry == "*":
        return True
    name, colon, wanted_port = entry.rpartition(":")
    if colon and wanted_port.isdecimal() and (":" not in name or name.endswith("]")):
        if int(wanted_port) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    try:
        address = ip_address(host)
    except ValueError:
        domain = entry.lstrip("*").lstrip(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))
    try:
        return address in ip_network(entry, strict=False)
    except ValueError:
        return False
