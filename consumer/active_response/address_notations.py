"""The addresses that a word stands for, in each notation that a firewall, a hosts file or a log uses.

What is meant is not known, so where a word has several readings, all count.
"""

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator

from consumer.system.network import Address

__all__ = ["Network", "network_of", "networks", "words"]


Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SEPARATORS = re.compile(r"[\s,;|\"'`<>(){}=]+")
_EVERYTHING = frozenset({"*", "all", "any", "anywhere", "default", "known", "local", "paranoid", "unknown"})
_ALL = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_URL = re.compile(r"[a-z][a-z0-9+.-]*://([^/?#]*)", re.IGNORECASE)
_BRACKETS = re.compile(r"\[([^\]]*)\](/[0-9.]+)?(?::.*)?")
_OCTET = re.compile(r"([0-9]{1,3})(?:-([0-9]{1,3}))?|\*")
_LEADING_ZERO = re.compile(r"(?<![0-9])0[0-9]")
_IPV4 = re.compile(r"(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?:/[0-9]+)?(?![0-9]|\.[0-9])")
_IPV6 = re.compile(r"[0-9A-Fa-f:]{0,100}:[0-9A-Fa-f:]{0,100}")
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291, 2.5.5.1
_LOWEST_COMPATIBLE = 1 << 24  # ::1 is another address
_NAME = re.compile(r"[^:/\[\]@#*]+")


def words(text: str) -> list[str]:
    """Return the words of a text, each of which may name addresses."""
    return [word for word in _SEPARATORS.split(text) if word]


def networks(word: str, look_up: Callable[[str], Iterable[Address]]) -> list[Network]:
    """Return what a word stands for: addresses, networks, ranges, prefixes, with a port or in a URL; none if nothing.

    `look_up` returns the addresses of a name, and of the forms that inet_aton(3) reads.
    """
    if word.lower() in _EVERYTHING or word.startswith(("!", "^")):  # as hosts_access(5), ip-route(8), iptables(8)
        return list(_ALL)
    for text in _spellings(word):
        found = _range(text) or _octets(text) or _network(text)
        if found and not _LEADING_ZERO.search(text):  # which are octal for some programs
            return found
        found += [network_of(address) for address in (look_up(text.rstrip(".")) if _NAME.fullmatch(text) else ())]
        if found:
            return found
    return [network for text in _within(word) for network in _network(text)]


def network_of(address: Address) -> Network:
    """Return the network of one address."""
    return _unmapped(ipaddress.ip_network(address))


def _spellings(word: str) -> Iterator[str]:
    """Yield the word, then what is left of it without a scheme, user, path, brackets and port."""
    yield word
    url = _URL.match(word)
    text = (url[1] if url else word.partition("#")[0]).rpartition("@")[2]
    yield text
    brackets = _BRACKETS.fullmatch(text)
    if brackets:
        yield f"{brackets[1]}{brackets[2] or ''}"
    elif ":" in text:
        yield text.rpartition(":")[0]


def _within(word: str) -> Iterator[str]:
    """Yield what may be an address or a network in a word that is none as a whole, such as `ip6:2001:db8::1`."""
    yield from _IPV4.findall(word)
    for found in _IPV6.findall(word):
        groups = found.split(":")
        yield from (":".join(groups[first:]) for first in range(len(groups) - 2))


def _range(text: str) -> list[Network]:
    """Return a range FROM-TO."""
    ends = [_address(end) for end in re.split(r"\.\.|[-\N{EN DASH}]", text)]
    if len(ends) != 2 or ends[0] is None or ends[1] is None or ends[0].version != ends[1].version:
        return []
    low, high = sorted(ends, key=int)  # type: ignore[arg-type]
    return [_unmapped(network) for network in ipaddress.summarize_address_range(low, high)]  # type: ignore[arg-type]


def _octets(text: str) -> list[Network]:
    """Return an IPv4 address of which octets are decimal, ranges or `*`, or the last ones are missing."""
    dotted, slash, mask = text.partition("/")
    parts = dotted.removesuffix(".").split(".")
    octets = [_OCTET.fullmatch(part) for part in parts]
    whole = len(parts) == 4 or slash or dotted.endswith((".", "*"))
    if not whole or len(parts) > 4 or not all(octets):
        return []
    low = [int(octet[1] or 0) for octet in octets if octet]
    high = [int(octet[2] or octet[1] or 255) for octet in octets if octet]
    missing = 4 - len(parts)
    try:
        first, last = bytes(low + missing * [0]), bytes(high + missing * [255])
        if slash:
            return [ipaddress.ip_network(f"{ipaddress.IPv4Address(first)}/{mask}", strict=False)]
        ends = sorted((ipaddress.IPv4Address(first), ipaddress.IPv4Address(last)))
        return list(ipaddress.summarize_address_range(*ends))
    except ValueError:
        return []


def _network(text: str) -> list[Network]:
    """Return an address or a network as Python reads it."""
    address, slash, prefix = text.partition("/")
    with contextlib.suppress(ValueError):
        if ":" in prefix:  # a mask
            ones = int(ipaddress.IPv6Address(prefix)).bit_count()
            prefix = str(ones) if ipaddress.IPv6Network((0, ones)).netmask == ipaddress.IPv6Address(prefix) else ""
        return [_unmapped(ipaddress.ip_network(f"{_bare(address)}{slash}{prefix}", strict=False))]
    return []


def _address(text: str) -> Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(_bare(text))
    return None


def _bare(text: str) -> str:
    """Return an address without brackets and zone."""
    return text.strip("[]").partition("%")[0]


def _unmapped(network: Network) -> Network:
    """Return the IPv4 network that an IPv6 one contains: mapped (RFC 4291, 2.5.5.2), compatible, translated, 6to4."""
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        first = network.network_address
        mapped = first.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, network.prefixlen - 96))
        if first.sixtofour is not None:
            return ipaddress.ip_network(first.sixtofour)
        if first in _TRANSLATED or (first in _COMPATIBLE and int(first) > _LOWEST_COMPATIBLE):
            return ipaddress.ip_network((int(first) & 0xFFFFFFFF, network.prefixlen - 96))
    return network
