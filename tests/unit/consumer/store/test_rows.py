"""Rows of results, of this version and of those before."""

import msgspec

from broker.contract.codec import decode_feedbacks
from consumer.ports import EncodedFeedback
from consumer.store.rows import decode_result
from tests.support.makers import result, stored_result


def test_result_row_is_returned_as_the_bytes_that_are_sent() -> None:
    kept = stored_result("a")
    assert decode_result(kept.encoded) == kept


def test_result_row_of_an_earlier_version_is_sent_without_nulls() -> None:
    old = msgspec.json.encode(result("a"))
    assert b'"code":null' in old
    read = decode_result(old)
    assert read == EncodedFeedback(result("a"), read.encoded)
    assert b"null" not in read.encoded
    assert decode_feedbacks(read.encoded) == [result("a")]
