"""The names of the package that an embedding program sees before it has used any."""

import consumer


def test_package_lists_exactly_its_public_names() -> None:
    assert dir(consumer) == sorted(consumer.__all__)
