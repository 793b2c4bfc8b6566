"""A real Prometheus for a test, which scrapes each second."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.brokers import free_port
from tests.support.waiting import holds_within, wait_for

__all__ = ["ROOT", "RULES", "Prometheus", "program", "rules", "running_prometheus"]

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging/prometheus/acm.rules.yml"


def program(name: str) -> str:
    """Return the path of Debian's program; `scripts/prometheus.sh` installs it."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: bash scripts/prometheus.sh")
    return found


def rules() -> list[dict[str, Any]]:
    """Return all alerts."""
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


class Prometheus:
    """The API of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=10, trust_env=False)

    def is_ready(self) -> bool:
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, expression: str) -> list[Any]:
        """Return the samples that a query finds now."""
        answer = self._http.post("/api/v1/query", data={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        return list(answer["data"]["result"])

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = self._http.get("/api/v1/alerts").json()["data"]["alerts"]
        return {it["labels"]["alertname"] for it in alerts if it["state"] == "firing"}

    def wait_scraped(self, job: str) -> None:
        """Wait until the program of a job has been scraped."""
        wait_for(lambda: self.query(f'up{{job="{job}"}} == 1'), f"the metrics of {job}")

    def fired(self) -> set[str]:
        """Return the names of the alerts that fire, or have fired."""
        return {it["metric"]["alertname"] for it in self.query('present_over_time(ALERTS{alertstate="firing"}[1h])')}

    def wait_fired(self, *names: str) -> None:
        """Wait until these alerts have fired, beside others."""
        if not holds_within(30, lambda: self.fired() >= set(names)):
            pytest.fail(f"these do not fire: {sorted(set(names) - self.fired())}")

    def close(self) -> None:
        self._http.close()


@contextmanager
def running_prometheus(directory: Path, jobs: Mapping[str, dict[str, Any]]) -> Iterator[Prometheus]:
    """Run it with the alerts of the project, each without the time for which its condition must hold.

    `jobs` are scrape configurations without their names.
    """
    groups = [{"name": "acm", "interval": "500ms", "rules": [{**it, "for": "0s"} for it in rules()]}]
    (directory / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    settings = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": name, **job} for name, job in jobs.items()],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(settings))
    listen = f"127.0.0.1:{free_port()}"
    argv = [program("prometheus"), f"--config.file={directory}/prometheus.yml", f"--web.listen-address={listen}"]
    argv += [f"--storage.tsdb.path={directory}/data", "--log.level=warn"]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    prometheus = Prometheus(f"http://{listen}")
    try:
        wait_for(prometheus.is_ready, "Prometheus to start", 60)
        yield prometheus
    finally:
        prometheus.close()
        process.terminate()
        process.wait(20)
