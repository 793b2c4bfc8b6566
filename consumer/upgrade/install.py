"""The first installation of an agent from a package; later releases are installed by upgrade-agent."""

from collections.abc import Sequence
from pathlib import Path

from broker.release.manifest import Manifest
from consumer.errors import UpgradeError
from consumer.system.leftovers import Leftovers
from consumer.upgrade.installation import Installation
from consumer.upgrade.packages import check_fits, open_package, unpack_package

__all__ = [
    "install",
]


def install(package: Path, root: Path, keys: Sequence[str]) -> Manifest:
    """Create an installation in `root` and return the manifest of the installed release.

    Raises UpgradeError, ArchiveError, ExposedFileError.
    """
    installation = Installation(root)
    try:
        current = installation.current
    except OSError as error:  # there may be a release, which must not be replaced
        raise UpgradeError(f"Nothing was installed: {error.filename}: {error.strerror}.") from error
    if current is not None:
        raise UpgradeError(
            f"{root} already holds version {current}; send the command upgrade-agent.", code="already_installed"
        )
    manifest = open_package(package, keys)
    try:
        installation.make()
        installation.refuse_exposed()
        check_fits(manifest, manifest.name, root)
        unpack_package(package, manifest, installation.release(manifest.version), Leftovers())
        installation.switch_to(manifest.version)
    except OSError as error:
        raise UpgradeError(f"Nothing was installed: {error.filename}: {error.strerror}.") from error
    return manifest
