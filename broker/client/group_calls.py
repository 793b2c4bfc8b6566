"""The requests of the API about groups."""

from collections.abc import Sequence
from urllib.parse import quote

from broker.client.calls import Call, change_call
from broker.fleet.group_models import GroupConfigurationRequest
from broker.fleet.models import GroupView, MembersRequest, OperationView, PageOf

__all__ = [
    "change_of_group",
    "for_group",
    "for_groups",
    "to_configure_group",
]


def for_groups() -> Call[PageOf[GroupView]]:
    """Return the call for all groups."""
    return Call("GET", "/v1/groups", PageOf[GroupView])


def for_group(name: str) -> Call[GroupView]:
    """Return the call for one group."""
    return Call("GET", f"/v1/groups/{quote(name, safe='')}", GroupView)


def change_of_group(group: str, action: str, agents: Sequence[str], *, allow_unknown: bool = False) -> Call[GroupView]:
    """Return the call that adds agents to a group, or removes them."""
    members = MembersRequest(tuple(agents), allow_unknown)
    return change_call(f"/v1/groups/{quote(group, safe='')}/{action}", GroupView, members)


def to_configure_group(group: str, sha256: str) -> Call[OperationView]:
    """Return the call that makes a stored file the configuration of a group."""
    return change_call(
        f"/v1/groups/{quote(group, safe='')}/configure", OperationView, GroupConfigurationRequest(sha256)
    )
