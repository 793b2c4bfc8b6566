"""Counters and histograms in memory."""

from broker.metrics.values import OTHER, Buckets, Counter, Histogram, Kind, LabelLimit, Metric

COUNTER = Metric("acm_things_total", Kind.COUNTER, "Things.", ("kind",))
HISTOGRAM = Metric("acm_thing_seconds", Kind.HISTOGRAM, "Seconds.", ("kind",))


def test_counter_has_zeros_of_what_it_begins_with() -> None:
    counter = Counter(COUNTER, [("a",)])
    counter.add("b", amount=2)
    assert counter.family().values == {("a",): 0, ("b",): 2}


def test_counter_without_labels_begins_with_zero() -> None:
    assert Counter(Metric("acm_all_total", Kind.COUNTER, "All.")).family().values == {(): 0}


def test_family_does_not_change_with_what_is_counted_later() -> None:
    histogram = Histogram(HISTOGRAM, [1.0])
    histogram.observe(0.5, "a")
    before = histogram.family().values
    histogram.observe(0.5, "a")
    assert before == {("a",): Buckets([(1.0, 1), (float("inf"), 1)], 0.5)}


def test_bucket_counts_what_is_at_most_its_bound_and_what_is_in_those_before() -> None:
    histogram = Histogram(HISTOGRAM, [1.0, 2.0])
    histogram.observe(1.0, "a")
    histogram.observe(1.5, "a", count=2)
    histogram.observe(9.0, "a")
    assert histogram.family().values == {("a",): Buckets([(1.0, 1), (2.0, 3), (float("inf"), 4)], 13.0)}


def test_label_beyond_the_limit_is_other() -> None:
    limit = LabelLimit(2)
    assert [limit(value) for value in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]
