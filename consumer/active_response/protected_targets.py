"""What no active response may act on, as Wazuh's white_list: an alert's address or account may have been forged.

Protected are the broker, the enrolment server, the gateways, the resolvers, this machine's own addresses, root,
the agent's account, and what the configuration adds. Names are resolved at each decision.
"""

import ipaddress
import os
import pwd
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog

from broker.contract.messages import JsonObject
from broker.mqtt.address import parse_url
from consumer.active_response.address_notations import Network, network_of, networks, words
from consumer.errors import ActiveResponseError
from consumer.settings import AgentConfig
from consumer.system.network import Address, gateways, own_addresses, resolve, resolvers

__all__ = [
    "ProtectedTargetError",
    "ProtectedTargets",
]


_log = structlog.get_logger(__name__)
_RESOLVE_TIMEOUT_S = 3.0
_SOURCE_ADDRESS = frozenset({"srcip", "sourceip", "sourceipaddress", "ipaddress"})
_ACCOUNT = frozenset({"dstuser", "srcuser", "user", "username"})
_FOR_ACCOUNTS = frozenset({"disable-account"})
_MAX_WORDS = 100
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


def _resolve(host: str) -> set[Address]:
    return resolve(host, _RESOLVE_TIMEOUT_S)


class ProtectedTargetError(ActiveResponseError):
    """An active response would act on an address or an account that it must not touch."""

    code = "protected_target"


class ProtectedTargets:
    """Decides whether a script may act on what an alert names. Thread-safe for one caller at a time."""

    def __init__(
        self,
        servers: Mapping[str, str] | None = None,
        addresses: Iterable[str] = (),
        accounts: Iterable[str] = (),
        look_up: Callable[[str], set[Address]] = _resolve,
    ) -> None:
        """`servers` are host names or addresses by what they are; `addresses` also takes networks."""
        self._servers = dict(servers or {})
        self._addresses = tuple(addresses)
        self._accounts = tuple(accounts)
        self._look_up = look_up
        self._last_known: dict[str, set[Address]] = {}

    @classmethod
    def of(cls, config: AgentConfig, enrolment_server: str | None) -> "ProtectedTargets":
        """Return those of an agent; `enrolment_server` is the URL in its enrolment."""
        servers = {"the broker": parse_url(config.broker).host}
        if enrolment_server is not None and (host := urlsplit(enrolment_server).hostname):
            servers["the enrolment server"] = host
        ours = config.active_response
        accounts = (*ours.protected_accounts, *([config.programs.user] if config.programs.user else []))
        return cls(servers, ours.protected_addresses, accounts)

    def check_alert(self, alert: JsonObject, executable: str) -> None:
        """Raise ProtectedTargetError if the alert's source address is protected, ActiveResponseError if it may be.

        So is its account, for a script that acts on accounts, or if the alert has no source address: that of an attack
        on root, for example, is to be blocked.
        """
        sources = list(_values(alert, _SOURCE_ADDRESS))
        self._check_addresses(sources)
        if executable in _FOR_ACCOUNTS or not sources:
            self._check_accounts(_values(alert, _ACCOUNT))

    def check_keys(self, keys: Iterable[str]) -> None:
        """Raise as above if a key, which names what a script is about to act on, is or may be protected."""
        keys = list(keys)
        self._check_addresses(keys, numeric=True)
        self._check_accounts(key for key in keys if not key.isdecimal())

    def _check_addresses(self, texts: Iterable[str], *, numeric: bool = False) -> None:
        named = [word for text in texts for word in words(text)]
        if len(named) > _MAX_WORDS:
            raise ProtectedTargetError(f"The alert's source has more than {_MAX_WORDS} words; nothing was done.")

        def look_up(name: str) -> set[Address]:
            return resolve(name, _RESOLVE_TIMEOUT_S, numeric=numeric)

        targets = [(word, network) for word in named for network in networks(word, look_up)]
        if not targets:
            return
        for what, protected in self._protected_networks():
            for word, target in targets:
                if target.version == protected.version and target.overlaps(protected):
                    raise ProtectedTargetError(
                        f"{word[:80]!r} includes {what}, which no active response may act on; nothing was done."
                    )

    def _protected_networks(self) -> Iterator[tuple[str, Network]]:
        for server, host in self._servers.items():
            for address in self._addresses_of(host):
                yield f"the address of {server}", network_of(address)
        for text in self._addresses:
            for network in networks(text, self._addresses_of):
                yield "what is protected by active_response.protected_addresses", network
        for loopback in _LOOPBACK:
            yield "an address of this machine", loopback
        for what, read in (
            ("an address of this machine", own_addresses),
            ("the address of a gateway", gateways),
            ("the address of a resolver", resolvers),
        ):
            for address in _read(read):
                yield what, network_of(address)

    def _addresses_of(self, host: str) -> set[Address]:
        """Return the addresses of a host, the last known ones if the resolver does not answer."""
        found = self._look_up(host)
        if found:
            self._last_known[host] = found
        elif host not in self._last_known:
            _log.warning("protected_name_not_resolved", name=host)
        return self._last_known.get(host, set())

    def _check_accounts(self, names: Iterable[str]) -> None:
        protected = {*self._accounts, "root"}
        uids = {0, os.geteuid(), *(uid for name in self._accounts if (uid := _uid_of(name)) is not None)}
        for name in names:
            if name in protected or _uid_of(name) in uids:
                raise ProtectedTargetError(
                    f"The account {name[:80]!r} is protected from active responses; nothing was done."
                )


def _read(addresses: Callable[[], set[Address]]) -> set[Address]:
    try:
        return addresses()
    except OSError as error:
        raise ActiveResponseError(
            f"What no active response may act on is not known, because {error.filename} cannot be read "
            f"({error.strerror}); nothing was done."
        ) from error


def _values(value: Any, names: frozenset[str]) -> Iterator[str]:
    """Return the texts below members of these names, at any depth; case and `_` do not count."""
    pending: list[tuple[bool, Any]] = [(False, value)]
    while pending:
        wanted, each = pending.pop()
        if isinstance(each, dict):
            pending += [(str(name).replace("_", "").lower() in names, item) for name, item in each.items()]
        elif isinstance(each, list | tuple):
            pending += [(wanted, item) for item in each]
        elif wanted and isinstance(each, str | int) and not isinstance(each, bool):
            yield str(each)


def _uid_of(name: str) -> int | None:
    if name.isascii() and name.isdecimal():
        return int(name[:12])
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError, UnicodeError):
        return None
