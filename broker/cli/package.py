"""acm package: makes the packages that agents upgrade themselves with, and checks them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.output import say
from broker.contract.messages import JsonObject
from broker.release.builder import Verified, make_manifest, sign, verify_package, write_package
from broker.release.manifest import SELF_TEST, Manifest, PackageError, render_manifest, this_platform
from broker.release.minisign import MinisignError, PublicKey

__all__ = [
    "app",
]


app = typer.Typer(no_args_is_help=True, help="Packages that agents upgrade themselves with.")
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the release; it holds bin/acm-agent.")]
VersionOption = Annotated[
    str | None,
    typer.Option("--version", help="Such as 1.4.2 or 1.5rc1; if not said, that of NAME's dist-info in DIR."),
]
NameOption = Annotated[str, typer.Option("--name", help="The product's name; agents take only their own.")]
PlatformOption = Annotated[
    str | None, typer.Option("--platform", help="Such as linux-x86_64, or `any`; this machine's if not said.")
]
_SELF_TEST = " ".join(SELF_TEST)
SelfTestOption = Annotated[
    str, typer.Option("--self-test", help="The release's program and its arguments that test it on a machine.")
]
PublicKeyOption = Annotated[
    list[str],
    typer.Option("--public-key", metavar="KEY|FILE", help="Whose signature is right; may be given several times."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command(epilog="Example: acm package build build/release --secret-key release.key")
def build(
    directory: Directory,
    version: VersionOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="The package; NAME-VERSION-PLATFORM.tar.gz if not said.")
    ] = None,
    secret_key: Annotated[
        Path | None, typer.Option("--secret-key", help="Key of minisign; its own default key if not said.")
    ] = None,
    signature: Annotated[
        Path | None, typer.Option("--signature", help="Signature of the manifest, made elsewhere; nothing is signed.")
    ] = None,
    name: NameOption = "agent-command-manager",
    platform: PlatformOption = None,
    self_test: SelfTestOption = _SELF_TEST,
    as_json: JsonOption = False,
) -> None:
    """Make a package of a directory, its manifest signed by the minisign tool."""
    manifest = make_manifest(directory, name, version, platform or this_platform(), self_test.split())
    signed = _read(signature) if signature else sign(render_manifest(manifest), secret_key)
    target = output or Path(f"{name}-{manifest.version}-{manifest.platform}.tar.gz")
    write_package(directory, manifest, signed, target)
    _tell({"package": str(target), **_manifest_json(manifest)}, as_json)


@app.command(epilog="Example: acm package manifest build/release > manifest.json")
def manifest(
    directory: Directory,
    version: VersionOption = None,
    name: NameOption = "agent-command-manager",
    platform: PlatformOption = None,
    self_test: SelfTestOption = _SELF_TEST,
) -> None:
    """Print the manifest of a directory, to be signed elsewhere and given to `build --signature`."""
    typer.echo(
        render_manifest(make_manifest(directory, name, version, platform or this_platform(), self_test.split())),
        nl=False,
    )


@app.command(epilog="Example: acm package verify agent-command-manager-1.4.2-linux-x86_64.tar.gz --public-key RWQ...")
def verify(
    package: Annotated[Path, typer.Argument(metavar="FILE", help="The package.")],
    public_key: PublicKeyOption = ["minisign.pub"],  # noqa: B006 - typer copies it
    as_json: JsonOption = False,
) -> None:
    """Check a package's signature and every file in it, and show what a command must say to name it."""
    _tell(_verified_json(verify_package(package, _keys(public_key))), as_json)


def _keys(given: Sequence[str]) -> list[PublicKey]:
    return [_key(text) for text in given]


def _key(text: str) -> PublicKey:
    try:
        return PublicKey.parse(_read(Path(text)) if Path(text).is_file() else text)
    except MinisignError as error:
        raise MinisignError(f"{text} is no public key and no file of one; name it by --public-key.") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PackageError(f"{path} cannot be read: {error}.") from error


def _manifest_json(manifest: Manifest) -> JsonObject:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "platform": manifest.platform,
        "files": len(manifest.files),
        "unpacked_bytes": manifest.size,
    }


def _verified_json(verified: Verified) -> JsonObject:
    return {
        **_manifest_json(verified.manifest),
        "signed_by": verified.signature.key_id,
        "trusted_comment": verified.signature.trusted_comment,
        "sha256": verified.file.sha256,
        "size": verified.file.size,
    }


def _tell(facts: JsonObject, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        say(f"{name:16}{value}")
