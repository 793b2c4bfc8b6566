"""Partly received files, and those that were never received to the end."""

import os

from consumer.system.leftovers import Leftovers
from consumer.system.partial_files import drop_stale_files, partial_file
from tests.support.makers import NOW
from tests.support.unprivileged import as_nobody, directory_of_nobody


def test_file_that_cannot_be_dropped_is_named_and_stops_no_download() -> None:
    with directory_of_nobody() as directory:
        leftovers = Leftovers()
        (directory / "0.part" / "of-root").mkdir(parents=True)
        for number in range(1, 6):
            (directory / f"{number}.part").touch()
        (directory / "6.part").symlink_to("missing")
        for number, path in enumerate(sorted(directory.iterdir())):
            os.utime(path, (number, number), follow_symlinks=False)
        with as_nobody():
            assert partial_file(directory, "new", leftovers) == directory / "new.part"
            names = {path.name for path in directory.iterdir()}
            assert names == {"0.part", "4.part", "5.part", "6.part"}
            drop_stale_files(directory, NOW, leftovers)
        assert [path.name for path in directory.iterdir()] == ["0.part"]
        assert f"{directory}/0.part/of-root: Permission denied" in str(leftovers.problem)
