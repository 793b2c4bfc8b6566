"""The addresses that this machine cannot do without: its own, those of its gateways, and those of its resolvers.

What cannot be read is an error, never "none": the functions raise OSError, with the file's name.
"""

import contextlib
import ipaddress
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic

from broker.system.threads import start_thread_within

__all__ = [
    "Address",
    "gateways",
    "own_addresses",
    "resolve",
    "resolvers",
]


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_RTF_GATEWAY = 0x2
_NET = Path("/proc/self/net")  # /proc/net is missing where /proc has processes only (subset=pid)
# systemd-resolved writes its own stub into the first, and the servers that it asks into the second.
_RESOLVER_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_LOCAL_IPV4 = re.compile(r"\|-- (\S+)\n[^|+]*/32 host LOCAL")


def own_addresses() -> set[Address]:
    """Return the addresses of all interfaces of this network namespace (proc(5))."""
    trie = _text(_NET / "fib_trie")
    found: set[Address] = {ipaddress.IPv4Address(text) for text in _LOCAL_IPV4.findall(trie)}
    return found | {_ipv6(fields[0]) for fields in _fields(_text_if_present(_NET / "if_inet6"))}


def gateways() -> set[Address]:
    """Return the next hops of all routes: a default route may be in several parts, as that of a VPN is."""
    found: set[Address] = set()
    for fields in _fields(_text(_NET / "route")):  # in the machine's byte order
        if int(fields[3], 16) & _RTF_GATEWAY:
            found.add(ipaddress.IPv4Address(socket.ntohl(int(fields[2], 16))))
    for fields in _fields(_text_if_present(_NET / "ipv6_route")):
        if int(fields[8], 16) & _RTF_GATEWAY:
            found.add(_ipv6(fields[4]))
    return found


def resolvers(files: Iterable[Path] = _RESOLVER_FILES) -> set[Address]:
    """Return the name servers of resolv.conf(5)."""
    found = set()
    for path in files:
        for line in _text_if_present(path).splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                with contextlib.suppress(ValueError):
                    found.add(ipaddress.ip_address(words[1].partition("%")[0]))
    return found


def resolve(host: str, timeout_s: float, *, numeric: bool = False) -> set[Address]:
    """Return the addresses of a host name or of any form of address that inet_aton(3) reads; none if there are none.

    A resolver that does not answer within `timeout_s` seconds counts as none; with `numeric`, none is asked.
    """
    flags = socket.AI_NUMERICHOST if numeric else 0
    found: set[Address] = set()

    def look_up() -> None:
        with contextlib.suppress(OSError, UnicodeError, ValueError):
            for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags):
                found.add(ipaddress.ip_address(str(address[0]).partition("%")[0]))

    if numeric:
        look_up()
        return found
    end, pause = monotonic() + timeout_s, threading.Event()
    thread = start_thread_within(look_up, "acm-resolve", lambda wait_s: pause.wait(wait_s) or monotonic() >= end)
    if thread is not None:
        thread.join(max(0.0, end - monotonic()))
    return set(found)


def _ipv6(digits: str) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(int(digits, 16))


def _fields(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        fields = line.split()
        if fields and fields[0] != "Iface":
            yield fields


def _text_if_present(path: Path) -> str:
    """Return a file that may be missing: a kernel without IPv6 has none of its files."""
    try:
        return _text(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace")
