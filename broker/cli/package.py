"""acm package: builds packages for upgrades of agents, and verifies them."""

from pathlib import Path
from typing import Annotated

import typer

from broker.console.output import Printer
from broker.console.output_options import with_printer
from broker.contract.messages import JsonObject
from broker.release.builder import VerifiedPackage, make_manifest, sign_manifest, verify_package, write_package
from broker.release.manifest import SELF_TEST, Manifest, PackageError, render_manifest, this_platform
from broker.release.minisign import MinisignError, PublicKey
from broker.system.text_files import NotText, read_text

__all__ = [
    "app",
]


_NAME = "agent-command-manager"
_SELF_TEST = " ".join(SELF_TEST)
app = typer.Typer(no_args_is_help=True)
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the release, with bin/acm-agent in it.")]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="VERSION",
        help="Version, such as 1.4.2 or 1.5rc1 (default: that of the dist-info of NAME in DIR).",
    ),
]
NameOption = Annotated[
    str, typer.Option("--name", metavar="NAME", help="Name of the product. Agents accept only their own.")
]
PlatformOption = Annotated[
    str | None,
    typer.Option(
        "--platform", metavar="PLATFORM", help="Platform, such as linux-x86_64, or `any` (default: this machine's)."
    ),
]
SelfTestOption = Annotated[
    str,
    typer.Option(
        "--self-test", metavar="COMMAND", help="Program of the release, with arguments, that tests it on a machine."
    ),
]
PublicKeyOption = Annotated[
    list[str],
    typer.Option("--public-key", metavar="KEY|FILE", help="Trusted minisign public key; may be repeated."),
]


@app.command(epilog="Example: acm package build build/release --secret-key release.key")
@with_printer()
def build(
    printer: Printer,
    directory: Directory,
    version: VersionOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Package to write (default: NAME-VERSION-PLATFORM.tar.gz)."),
    ] = None,
    secret_key: Annotated[
        Path | None,
        typer.Option("--secret-key", metavar="FILE", help="Secret key of minisign (default: that of minisign)."),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option("--signature", metavar="FILE", help="Signature of the manifest; use it instead of signing."),
    ] = None,
    name: NameOption = _NAME,
    platform: PlatformOption = None,
    self_test: SelfTestOption = _SELF_TEST,
) -> None:
    """Build a package of a directory, and sign its manifest with minisign."""
    manifest = make_manifest(directory, name, version, platform or this_platform(), self_test.split())
    signed = _read(signature) if signature else sign_manifest(render_manifest(manifest), secret_key)
    target = out or Path(f"{name}-{manifest.version}-{manifest.platform}.tar.gz")
    write_package(directory, manifest, signed, target)
    _show(printer, {"package": str(target), **_manifest_json(manifest)})


@app.command(epilog="Example: acm package manifest build/release > manifest.json")
def manifest(
    directory: Directory,
    version: VersionOption = None,
    name: NameOption = _NAME,
    platform: PlatformOption = None,
    self_test: SelfTestOption = _SELF_TEST,
) -> None:
    """Print the manifest of a directory, to sign it elsewhere and pass it to `build --signature`."""
    made = make_manifest(directory, name, version, platform or this_platform(), self_test.split())
    typer.echo(render_manifest(made), nl=False)


@app.command(epilog="Example: acm package verify agent-command-manager-1.4.2-linux-x86_64.tar.gz --public-key RWQ...")
@with_printer()
def verify(
    printer: Printer,
    package: Annotated[Path, typer.Argument(metavar="FILE", help="Package to verify.")],
    public_key: PublicKeyOption = ["minisign.pub"],  # noqa: B006 - typer copies it
) -> None:
    """Verify a package's signature and every file in it, and print the values that an upgrade-agent command needs."""
    _show(printer, _verified_json(verify_package(package, [_key(text) for text in public_key])))


def _key(text: str) -> PublicKey:
    try:
        return PublicKey.parse(_read(Path(text)) if Path(text).is_file() else text)
    except MinisignError as error:
        raise MinisignError(
            f"{text} is not a minisign public key, nor a file with one: set --public-key.",
            code="not_a_public_key",
        ) from error


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, NotText) as error:
        raise PackageError(f"Cannot read {path}: {error}.", code="unreadable_file") from error


def _manifest_json(manifest: Manifest) -> JsonObject:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "platform": manifest.platform,
        "files": len(manifest.files),
        "unpacked_bytes": manifest.size,
    }


def _verified_json(verified: VerifiedPackage) -> JsonObject:
    return {
        **_manifest_json(verified.manifest),
        "signed_by": verified.signature.key_id,
        "trusted_comment": verified.signature.trusted_comment,
        "sha256": verified.file.sha256,
        "size": verified.file.size,
    }


def _show(printer: Printer, facts: JsonObject) -> None:
    printer.show(facts, "\n".join(f"{name:16}{value}" for name, value in facts.items()))
