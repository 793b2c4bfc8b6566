"""acm-agent install, self-test and watch-upgrade: the releases of an agent that can upgrade itself."""

from pathlib import Path
from typing import Annotated

import typer

from broker.system.process import forbid_dumps
from broker.text import toml_string

__all__ = ["app"]


app = typer.Typer()


@app.command(
    "install", epilog="Example: acm-agent install agent-1.4.2-linux-x86_64.tar.gz --root /opt/acm --public-key RWQ..."
)
def install_agent(
    package: Annotated[Path, typer.Argument(metavar="FILE", help="Package built by `acm package build`.")],
    root: Annotated[Path, typer.Option("--root", help="Directory for the agent's releases, used by this agent alone.")],
    public_key: Annotated[
        list[str], typer.Option("--public-key", metavar="KEY", help="minisign public key, RW...; may be repeated.")
    ],
) -> None:
    """Install an agent that can upgrade itself."""
    from consumer.upgrade.install import install

    installed = install(package, root.absolute(), public_key)
    typer.echo(f"Version {installed.version} is installed; start it with {root.absolute()}/acm-agent run.")
    typer.echo(f"Its configuration needs:\n\n[upgrade]\nroot = {toml_string(str(root.absolute()))}")
    keys = ", ".join(map(toml_string, public_key))
    typer.echo(f"public_keys = [{keys}]")


@app.command("self-test", epilog="Example: acm-agent self-test")
def check_release() -> None:
    """Check that this release works on this machine. An upgrade runs this before it switches."""
    from importlib.metadata import version

    from consumer.self_test import self_test

    types = self_test()
    typer.echo(f"Version {version('agent-command-manager')} works here; it supports {', '.join(types)}.")


@app.command("watch-upgrade", hidden=True)
def watch_upgrade(
    root: Annotated[Path, typer.Option("--root", help="Directory of the installation.")],
    arguments: Annotated[list[str], typer.Argument(help="The arguments that the agent was started with.")],
) -> None:
    """Watch a release on trial; the launcher runs this."""
    from broker.system.logging import configure_logs
    from consumer.upgrade.watcher import watch

    configure_logs("info")
    forbid_dumps()
    watch(root, arguments)
