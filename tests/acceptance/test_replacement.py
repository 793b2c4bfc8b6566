"""An agent whose process a command replaces: it continues if the program that would replace it does not start."""

import os
import shutil
import site as interpreter_site
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import ROOT, Program, Site

AGENT = "web-01"


class Environment:
    """An agent in a virtual environment of its own, which the test damages while it runs."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.directory = site.directory / "venv"
        self.modules = site.directory / "modules"
        self.config = site.directory / "agent.toml"
        self.modules.mkdir()
        self.config.write_text("default_timeout_s = 60.0\n")
        (self.directory / "bin").mkdir(parents=True)
        (self.directory / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
        (self.directory / "bin" / "python").symlink_to(Path(sys.executable).resolve())

    def start(self) -> Program:
        argv = [str(self.directory / "bin" / "python"), "-m", "consumer", "run", "--agent", AGENT]
        argv += ["--broker", self.site.broker_url, "--state", str(self.site.state(AGENT))]
        places = [str(self.modules), str(ROOT), *interpreter_site.getsitepackages()]
        program = self.site._start(AGENT, [*argv, "--config", str(self.config)], PYTHONPATH=os.pathsep.join(places))
        self.site.wait_online(AGENT)
        return program

    def lose_interpreter(self) -> None:
        (self.directory / "bin").rename(self.directory / "bin.gone")

    def lose_library(self) -> None:
        (self.modules / "yaml.py").write_text("raise ModuleNotFoundError(\"No module named 'yaml'\")\n")

    def break_configuration(self) -> None:
        self.config.write_text("default_timeout_s = 60.0\ndefault_timeout = 5\n")

    def repair(self) -> None:
        if not (self.directory / "bin").exists():
            (self.directory / "bin.gone").rename(self.directory / "bin")
        (self.modules / "yaml.py").unlink(missing_ok=True)
        shutil.rmtree(self.modules / "__pycache__", ignore_errors=True)
        self.config.write_text("default_timeout_s = 60.0\n")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (Environment.lose_interpreter, "venv/bin/python"),
        (Environment.lose_library, "No module named 'yaml'"),
        (Environment.break_configuration, "default_timeout"),
    ],
)
def test_agent_that_would_not_start_again_is_not_restarted(
    site: Site, damage: Callable[[Environment], None], named: str
) -> None:
    environment = Environment(site)
    program = environment.start()
    damage(environment)
    refused = site.result(site.send(AGENT, "restart-agent"))
    assert (refused["code"], named in refused["message"]) == ("failed", True), refused
    assert program.process.poll() is None
    before: Any = site.wait_online(AGENT)["incarnation"]
    environment.repair()
    restarted = site.result(site.send(AGENT, "restart-agent"))
    assert (restarted["outcome"], restarted["data"]["previous_incarnation"]) == ("success", before)
