"""Renders Mosquitto's files: the configuration for each kind of listener, and the access control list."""

from importlib import resources
from pathlib import Path
from string import Template

__all__ = [
    "render_access_control_list",
    "render_loopback_configuration",
    "render_secured_configuration",
]


def render_loopback_configuration(data: Path, port: int) -> str:
    """Return the mosquitto.conf of a broker on loopback with its data in `data`, open to every local client."""
    return _with_listener(_render("listener-loopback.conf", port=port), data)


def render_secured_configuration(directory: Path, listen: str) -> str:
    """Return the mosquitto.conf of a broker that requires client certificates.

    Its files are in `directory`, its data in `data` there; `listen` is `PORT` (all addresses) or `PORT ADDRESS`.
    """
    return _with_listener(_render("listener-certificates.conf", directory=directory, listen=listen), directory / "data")


def render_access_control_list(server: str, prefix: str) -> str:
    """Return the access control list: all topics below `prefix` for the user `server`, their own ones for agents."""
    return _render("acl", server=server, prefix=prefix)


def _with_listener(listener: str, data: Path) -> str:
    return _render("mosquitto.conf", listener=listener.rstrip(), data=data)


def _render(name: str, **values: object) -> str:
    template = resources.files("broker.mosquitto").joinpath("templates", name).read_text(encoding="utf-8")
    return Template(template).substitute(values)
