"""The check of a row finds what the disk has altered, also where the check itself was altered before."""

import pytest

from consumer.store.row_check import verified, with_check, without_check

KEY, CONTENT = "r/a", b'{"message":"It was not run again.","digest":"' + 64 * b"c" + b'"}'
ROW = with_check(KEY, CONTENT)
PLACES = range(len(CONTENT), len(ROW))


def flipped(row: bytes, *places: int) -> bytes:
    altered = bytearray(row)
    for place in places:
        altered[place] ^= 1
    return bytes(altered)


@pytest.mark.parametrize("place", PLACES)
def test_flip_in_the_check_hides_no_other_one(place: int) -> None:
    with pytest.raises(ValueError, match="not what was written"):
        verified(KEY, flipped(ROW, place, 13))


@pytest.mark.parametrize("place", PLACES)
def test_flip_in_the_check_leaves_the_content_as_it_is(place: int) -> None:
    assert without_check(flipped(ROW, place)) == CONTENT


@pytest.mark.parametrize("row", [CONTENT, b'{"a":1}', b"{}", b"", b'{"received_at":"2026-01-01T00:00:00.000000Z"}'])
def test_row_of_an_earlier_version_has_no_check(row: bytes) -> None:
    assert verified(KEY, row) == row
