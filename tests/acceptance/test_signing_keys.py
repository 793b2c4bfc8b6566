"""Changing the signing keys under a server and an agent that are real processes."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

from broker.contract.codec import encode
from broker.contract.dsse import Scope, SigningKey
from broker.contract.messages import Command, Origin, SequenceNumber
from broker.mqtt.connection import MqttConnection
from tests.acceptance.conftest import ROOT, Site
from tests.support.enrolled import now, signed
from tests.support.waiting import wait_for


def keys(site: Site, *arguments: str, check: int | None = 0) -> Any:
    return site.acm("keys", *arguments, "--keys", str(site.directory / "ca" / "signing"), check=check)


def confirmed(site: Site) -> bool:
    """Whether the agent has the newest list; read from the ledger, because acm takes its time to start."""
    with site.opened_ledger() as ledger:
        (row,) = ledger.agents()
    return row.status is not None and row.status.signing_keys_version == site.sign().keys.version


def attacker_at(site: Site) -> MqttConnection:
    """The connection of an attacker who may publish anything."""
    return MqttConnection(
        site.broker_url, "mallory", clean_start=True, session_expiry_s=0, subscriptions=["acm/web-01/feedback"]
    )


def answers_to(site: Site, key: SigningKey, enrolment: str) -> list[str]:
    """Publish a command signed by this key only, and return the codes of the agent's feedback to it."""
    forged = Command(
        "forged", "get-agent-configuration", {}, Origin("me", "test"), now(), sequence=SequenceNumber(2**50, 1)
    )
    attacker = attacker_at(site)
    frame = signed((key,), Scope("acm-server", "web-01", (enrolment,), now()), encode([forged]))
    codes: list[str] = []
    with attacker:
        assert attacker.wait_connected(10)
        attacker.publish("acm/web-01/command", frame)

        def received() -> list[str]:
            for delivery in attacker.drain(0.1):
                parts = json.loads(delivery.payload)
                for part in parts if isinstance(parts, list) else [parts]:
                    if part.get("command_id") == "forged":
                        codes.append(part.get("code", part["kind"]))
            return codes

        return list(wait_for(received, "the answer"))


def test_offline_agent_gets_a_new_key_before_the_old_one_is_revoked(signing_site: Site) -> None:
    site = signing_site
    registrar = site.sign()
    enrolment = site.enroll("web-01")
    (old,) = registrar.keys.signing
    site.start_enrolled_agent("web-01")
    site.wait_online("web-01")
    wait_for(lambda: confirmed(site), "the agent to report which keys it trusts")
    site.programs.pop().stop()
    rotated = keys(site, "rotate")
    waiting = site.send("web-01", "get-agent-configuration", "section=broker")
    refused = subprocess.run(
        [sys.executable, "-m", "broker", "keys", "revoke", old.public.id],
        cwd=ROOT,
        env={"ACM_LEDGER": site.ledger, "ACM_CA": str(site.directory / "ca")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (refused.returncode, "web-01" in refused.stderr, "Traceback" in refused.stderr) == (1, True, False)
    site.start_enrolled_agent("web-01")
    assert site.result(waiting)["outcome"] == "success"
    (told,) = site.acm("operation", "show", rotated["operation"], "--wait", "40")["commands"]
    assert told["result"]["data"] == {"version": rotated["version"], "keys": [old.public.id, rotated["id"]]}
    wait_for(lambda: confirmed(site), "the agent to report which keys it trusts")
    revoked = keys(site, "revoke", old.public.id)
    done = site.acm("operation", "show", revoked["operation"], "--wait", "40")["commands"][0]
    assert done["result"]["data"] == {"version": revoked["version"], "keys": [rotated["id"]]}
    assert answers_to(site, old, enrolment) == ["rejected"]
    assert site.sent("web-01", "restart-agent", "--wait", "40")["result"]["outcome"] == "success"
    assert answers_to(site, old, enrolment) == ["rejected"], "the new incarnation knows it too"
    listed = keys(site, "list")
    assert [key["state"] for key in listed["keys"]] == ["revoked", "active"]
    assert (listed["announced"], listed["agents"], listed["confirmed"]) == (True, 1, 1)


def test_stolen_key_is_replaced_while_the_attacker_publishes(signing_site: Site) -> None:
    """The procedure of docs/security.md, against an attacker who uses up the agent's numbers and epochs."""
    site = signing_site
    registrar = site.sign()
    enrolment = site.enroll("web-01")
    (stolen,) = registrar.keys.signing
    site.start_enrolled_agent("web-01")
    site.wait_online("web-01")
    wait_for(lambda: confirmed(site), "the agent to report which keys it trusts")
    epoch = int(now().timestamp() * 1000) + 86_400_000
    numbers = [*(SequenceNumber(epoch, number) for number in range(1, 6)), SequenceNumber(2**53 - 1, 1)]
    forged = Command("forged", "fetch-config", {}, Origin("me", "test"), now())
    sent = [replace(forged, id=f"forged-{n}", sequence=number) for n, number in enumerate(numbers)]
    with attacker_at(site) as attacker:
        assert attacker.wait_connected(10)
        scope = Scope("acm-server", "web-01", (enrolment,), now())
        attacker.publish("acm/web-01/command", signed((stolen,), scope, encode(sent)))
        rotated = keys(site, "rotate")
        keys(site, "revoke", stolen.public.id, "--leave-agents-behind")
        wait_for(lambda: confirmed(site), "the agent to apply the list without the stolen key")
    assert [key.public.id for key in registrar.keys.signing] == [rotated["id"]]
    assert answers_to(site, stolen, enrolment) == ["rejected"]
    assert site.sent("web-01", "get-agent-configuration", "--wait", "40")["result"]["outcome"] == "success"
