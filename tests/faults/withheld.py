"""A proxy withholds one type of packet, of the server or of the agent, for some seconds, while commands are sent.

Server and agent notice within seconds what takes minutes otherwise: they are those of hasty.py.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.conftest import Site
from tests.faults.hasty import ANSWER_S, DEAF_S, WINDOW
from tests.faults.site import AGENT, SETTLE_S, FaultySite
from tests.faults.tally import Budget, Tally
from tests.support.brokers import free_port, tuned_mosquitto
from tests.support.fakes.mqtt5_broker import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
)
from tests.support.mqtt_proxy import MqttProxy, Sender, mqtt_proxy

__all__ = ["loop"]


_SERVER = "acm-server"
_PACKETS = (
    *((Sender.CLIENT, kind) for kind in (PUBLISH, PUBACK, SUBSCRIBE, CONNECT, PINGREQ, DISCONNECT)),
    *((Sender.BROKER, kind) for kind in (PUBLISH, PUBACK, SUBACK, CONNACK, PINGRESP)),
)
_LASTING = tuple((client, sender, PUBACK) for sender in (Sender.BROKER, Sender.CLIENT) for client in (AGENT, _SERVER))
_CASES = tuple((client, sender, kind) for client in (AGENT, _SERVER) for sender, kind in _PACKETS)
_AT_CONNECT = (CONNECT, CONNACK, SUBSCRIBE, SUBACK)
_COMMANDS = 2 * WINDOW
_STOP_S = 10.0
_FULL_S = 10.0


def loop(budget: Budget) -> Tally:
    """Withhold each type of packet in turn, then pass all on; each time all commands must end by themselves.

    The PUBACKs come first: what they stop does not begin again when they are passed on. The others are in random order.
    """
    tally = Tally()
    with _site() as (site, proxy):
        others = [case for case in _CASES if case not in _LASTING]
        cases = [*_LASTING, *budget.random.sample(others, len(others))]
        for number in budget.rounds(reserve_s=SETTLE_S):
            client, sender, kind = cases[number % len(cases)]
            proxy.withhold(client, sender, kind)
            if kind in _AT_CONNECT:
                proxy.cut(client)
            if kind == DISCONNECT:
                _restart(site, client, tally)
            for _ in range(_COMMANDS):
                site.send(1)
                time.sleep(budget.random.uniform(0.0, 0.2))
            if kind == PUBACK:
                _wait_until_full(proxy)
            time.sleep(budget.random.uniform(0.0, ANSWER_S + DEAF_S))
            tally.counts["packets withheld"] += proxy.count
            proxy.pass_all()
            tally.counts["rounds"] += 1
            if not _settles(site, tally, f"{sender.name.lower()}'s packets of type {kind}, for {client}"):
                break
        site.settle(tally)
    return tally


def _wait_until_full(proxy: MqttProxy) -> None:
    deadline = time.monotonic() + _FULL_S
    while proxy.count < WINDOW and time.monotonic() < deadline:
        time.sleep(0.1)


def _restart(site: FaultySite, client: str, tally: Tally) -> None:
    program, start = (site.agent, site.start_agent) if client == AGENT else (site.server, site.start_server)
    began = time.monotonic()
    program.stop()
    if time.monotonic() - began > _STOP_S:
        tally.violations.append(f"{client} did not end within {_STOP_S:g} s of TERM")
    start()


def _settles(site: FaultySite, tally: Tally, what: str) -> bool:
    waiting = site.waits_for_results()
    if waiting:
        tally.violations.append(f"{len(waiting)} commands did not end after this was withheld: {what}")
    return not waiting


@contextmanager
def _site() -> Iterator[tuple[FaultySite, MqttProxy]]:
    with tempfile.TemporaryDirectory(prefix="acm-faults-") as directory:
        port, settings = free_port(), (f"max_inflight_messages {WINDOW}", "max_queued_messages 0")
        with tuned_mosquitto(Path(directory), *settings, port=port), mqtt_proxy(port) as proxy:
            site = Site(proxy.url, Path(directory))
            try:
                faulty = FaultySite(site, {}, server="tests.faults.hasty", agent="tests.faults.hasty")
                site.wait_online(AGENT)
                yield faulty, proxy
            finally:
                site.stop()
