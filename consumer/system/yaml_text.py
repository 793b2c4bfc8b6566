"""YAML by its own rules: tags of a service's own, anchors, several documents. No object of a tag is constructed."""

import math
from typing import Any

import yaml

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

__all__ = [
    "check_yaml",
    "yaml_documents",
]


_MAX_DEPTH = 1000  # as libyaml since 0.2.6
_PREFIX = "tag:yaml.org,2002:"
_BOOLEANS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


def check_yaml(text: str) -> None:
    """Raise YAMLError or ValueError if this is not YAML. Aliases are not expanded, so their number does not matter."""
    depth, anchors = 0, set[str]()
    for event in yaml.parse(text, Loader=_Loader):
        match event:
            case yaml.DocumentStartEvent():
                anchors.clear()
            case yaml.CollectionStartEvent():
                depth += 1
            case yaml.CollectionEndEvent():
                depth -= 1
            case yaml.AliasEvent() if event.anchor not in anchors:
                raise ValueError(f"the alias *{event.anchor} has no anchor before it")
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.anchor is not None:
            anchors.add(event.anchor)


def yaml_documents(text: str) -> list[Any]:
    """Return the documents as mappings, lists and scalars; what has a tag of its own is as without it.

    An alias is the same object as its anchor, and may contain itself. Raises YAMLError, ValueError and RecursionError.
    """
    check_yaml(text)  # first: the composer recurses
    return [_value(node, {}) for node in yaml.compose_all(text, Loader=_Loader)]


def _value(node: yaml.Node, known: dict[int, Any]) -> Any:
    if id(node) in known:
        return known[id(node)]
    if isinstance(node, yaml.MappingNode):
        mapping = known[id(node)] = dict[str, Any]()
        for key, value in node.value:
            mapping[key.value if isinstance(key, yaml.ScalarNode) else f"<{key.id}>"] = _value(value, known)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        items = known[id(node)] = list[Any]()
        items.extend(_value(item, known) for item in node.value)
        return items
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    """Return the value of a plain word that is one; otherwise the text as it is written."""
    text: str = node.value
    try:
        match node.tag.removeprefix(_PREFIX):
            case "null":
                return None
            case "bool":
                return _BOOLEANS.get(text.lower(), text)
            case "int":
                return int(text)
            case "float" if math.isfinite(float(text)):
                return float(text)
    except ValueError:
        pass
    return text
