"""The first installation of a release, and what keeps it from being made."""

from pathlib import Path

from broker.release.manifest import ANY_PLATFORM, Manifest, PackagedFile
from consumer.errors import UpgradeError
from consumer.upgrade.install import install
from consumer.upgrade.installation import Installation
from consumer.upgrade.packages import check_fits
from consumer.upgrade.trial import UpgradeTrial
from tests.support.errors import raises_code


def test_installation_is_made_only_once(tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("releases/1.0.0")
    with raises_code(UpgradeError, "already_installed"):
        install(tmp_path / "package", tmp_path, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current"]


def test_installation_whose_release_cannot_be_determined_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "loop"
    root.symlink_to(root)
    with raises_code(UpgradeError, "upgrade_error") as caught:
        install(tmp_path / "package", root, [])
    assert str(caught.value).startswith("Nothing was installed")


def test_installation_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with raises_code(UpgradeError, "upgrade_error"):
        install(tmp_path / "package", tmp_path, [])
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with raises_code(UpgradeError, "upgrade_error"):
        install(tmp_path / "package", loop, [])


def test_release_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    huge = PackagedFile("0" * 64, 1 << 62, executable=False)
    manifest = Manifest(1, "agent", "1.0.0", ANY_PLATFORM, {"huge": huge})
    with raises_code(UpgradeError, "disk_full"):
        check_fits(manifest, "agent", tmp_path)


def test_installation_in_a_file_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.write_bytes(b"")
    with raises_code(UpgradeError, "upgrade_error"):
        Installation(root).refuse_exposed()


def test_damaged_record_of_a_trial_is_an_error() -> None:
    with raises_code(UpgradeError, "trial_damaged"):
        UpgradeTrial.decode(b"{")
