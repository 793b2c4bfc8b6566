"""An agent's audit journal against the ledger: an honest one agrees, and each forgery is reported."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from broker.app.factories import open_database
from broker.audit.comparison import Verdict, compare
from broker.audit.findings import LedgerSide
from broker.contract.commands.get_audit_journal import GetAuditJournalData
from broker.contract.journal import MIN_KEPT_BYTES, JournalPage, command_sha256
from broker.contract.messages import Command, JournalMark, Origin
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.pruning import LedgerPruning
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.journals import Entries, chained, entries_of, forged, journal_of
from tests.support.makers import encoded, result
from tests.support.recorded import record_feedback

AGENT = "web-01"


@dataclass
class Pair:
    """A ledger and the store of its one agent, after three commands, the last of which asks for the journal."""

    ledger: Ledger
    store: MemoryCommandStore
    now: Callable[[], Any]

    def send(self, agent: str = AGENT) -> Command:
        return self.ledger.add_command(
            agent, CommandRequest("set-group", {"groups": ["b", "a"]}, Origin("me", "test"), timeout_s=5.0)
        )

    def accept(self, command: Command) -> None:
        stored = self.store.store_command(command, self.now())
        self.store.mark_processing(stored, self.now(), "i1")

    def end(self, command: Command, digest: str) -> None:
        stored = self.store.find(command.id)
        assert stored is not None
        reported = replace(result(command.id), digest=digest)
        self.store.mark_completed(stored, encoded(reported))
        self.ledger.claim_due(9)
        record_feedback(self.ledger, AGENT, [reported])
        self.store.delete_completed_commands([command.id], self.now() + timedelta(days=8))

    def side(self, requested_by: str, **members: Any) -> LedgerSide:
        audits = self.ledger.audits
        names = [row.command.id for row in self.ledger.commands()]
        known, accepted = audits.look_up(names), audits.accepted_commands(AGENT, 100)
        return replace(
            LedgerSide(
                AGENT,
                known,
                audits.unmatched_results(AGENT),
                accepted,
                None,
                audits.verified(AGENT),
                False,
                requested_by,
            ),
            **members,
        )


@pytest.fixture
def pair(clock: TurnedClock, ledger_url: str) -> Iterator[Pair]:
    ledger = Ledger(open_database(ledger_url), now=clock.now)
    yield Pair(ledger, MemoryCommandStore(now=clock.now), clock.now)
    ledger.database.close()


@pytest.fixture
def commands(pair: Pair) -> list[Command]:
    """Two completed commands, and a running one."""
    sent = [pair.send() for _ in range(3)]
    for command, digest in zip(sent[:2], "pq", strict=True):
        pair.accept(command)
        pair.end(command, digest)
    pair.accept(sent[2])
    return sent


def compared(pair: Pair, commands: list[Command], journal: GetAuditJournalData, **members: Any) -> Verdict:
    return compare(journal, pair.side(commands[-1].id, **members))


def first(verdict: Verdict) -> str:
    return verdict.differences[0].message if verdict.differences else "no difference"


def codes(verdict: Verdict) -> list[str]:
    return [difference.code for difference in verdict.differences]


def test_honest_journal_agrees_with_the_ledger(pair: Pair, commands: list[Command]) -> None:
    journal = journal_of(pair.store)
    verdict = compared(pair, commands, journal, status_head=journal.head)
    assert (verdict.differences, verdict.notes) == ((), ())
    assert (verdict.entries, verdict.commands, verdict.head) == (journal.head.number, 3, journal.head)
    assert verdict.since == verdict.until == pair.now()


def test_journal_agrees_with_a_pruned_ledger(pair: Pair, commands: list[Command]) -> None:
    journal = journal_of(pair.store)
    assert LedgerPruning(pair.ledger.database, pair.now() + timedelta(days=1)).run()["commands"] == 2
    names = [command.id for command in commands]
    verdict = compare(journal, replace(pair.side(names[-1]), known=pair.ledger.audits.look_up(names)))
    assert (verdict.differences, verdict.notes) == ((), ())


def entry_with(entries: Entries, event: str, which: int = 0) -> dict[str, Any]:
    return [entry for entry in entries if event in entry][which]


def without(event: str) -> Callable[[Entries], None]:
    return lambda entries: entries.remove(entry_with(entries, event))


def changed(event: str, **members: Any) -> Callable[[Entries], None]:
    return lambda entries: entry_with(entries, event)[event][0].update(members)


def repeated(event: str, **members: Any) -> Callable[[Entries], None]:
    def change(entries: Entries) -> None:
        again = {**entry_with(entries, event), **members}
        entries.insert(entries.index(entry_with(entries, event)) + 1, again)

    return change


def resumed_after_its_result(entries: Entries) -> None:
    completed = entry_with(entries, "reported")["reported"][0]["id"]
    entries.append({**entries[-1], "begun": [], "resumed": [completed]})


def never_there(entries: Entries) -> None:
    gone = entry_with(entries, "accepted")["accepted"][0]["id"]
    entries[:] = [entry for entry in entries if gone not in str(entry)]


@pytest.mark.parametrize(
    ("change", "code", "detail"),
    [
        (changed("accepted", sha256="0" * 64), "other_content", "0000"),
        (changed("accepted", id="other"), "unknown_command", "command other"),
        (changed("accepted", sequence={"epoch": 2**50, "number": 9}), "other_sequence", f"number 9 of epoch {2**50}"),
        (changed("reported", digest="z"), "other_result", "result z was reported; the ledger holds p"),
        (changed("reported", outcome="error"), "other_outcome", "outcome error was reported; the ledger holds success"),
        (repeated("accepted"), "accepted_twice", ""),
        (repeated("begun"), "begun_twice", "had begun already"),
        (repeated("reported"), "second_result", ""),
        (resumed_after_its_result, "resumed_idle", "it was not running"),
        (repeated("deleted"), "deleted_twice", ""),
        (without("reported"), "deleted_without_result", ""),
        (without("accepted"), "never_accepted", ""),
        (without("opened"), "no_opening", "Number 1"),
        (never_there, "command_missing", "number 1 of"),
        (lambda entries: entries.reverse(), "no_opening", "Number 1"),
        (lambda entries: entries.append({**entries[-1], "begun": [], "deleted": ["x"]}), "never_accepted", "command x"),
        (lambda entries: entry_with(entries, "accepted").pop("at"), "unreadable_entry", ""),
    ],
)
def test_forged_entry_is_found_though_all_hashes_fit(
    pair: Pair, commands: list[Command], change: Callable[[Entries], Any], code: str, detail: str
) -> None:
    verdict = compared(pair, commands, forged(journal_of(pair.store), change))
    assert codes(verdict)[:1] == [code]
    assert detail in first(verdict)


def test_deletion_of_a_result_that_the_ledger_lacks_is_a_difference(pair: Pair, commands: list[Command]) -> None:
    def delete(entries: Entries) -> None:
        reported = {"id": commands[2].id, "digest": "r", "outcome": "success"}
        entries.append(
            {**entries[-1], "begun": [], "accepted": [], "reported": [reported], "deleted": [commands[2].id]}
        )

    assert codes(compared(pair, commands, forged(journal_of(pair.store), delete))) == ["deleted_uncommitted"]


def test_command_may_run_again_only_after_a_restart(pair: Pair, commands: list[Command]) -> None:
    stored = pair.store.find(commands[2].id)
    assert stored is not None
    pair.store.mark_resumed(stored, "i2")
    assert compared(pair, commands, journal_of(pair.store)).differences == ()
    pair.store.mark_resumed(stored, "i2")
    assert codes(compared(pair, commands, journal_of(pair.store))) == ["resumed_without_restart"]


def test_journal_without_the_requesting_command_is_a_difference(pair: Pair, commands: list[Command]) -> None:
    journal = journal_of(pair.store)
    assert codes(compare(journal, pair.side(pair.send().id))) == ["request_missing"]


def test_altered_line_breaks_the_chain(pair: Pair, commands: list[Command]) -> None:
    journal = journal_of(pair.store)
    (page,) = journal.pages
    line = page.entries[2].replace('"begun"', '"began"')
    bad = replace(journal, pages=(replace(page, entries=(*page.entries[:2], line, *page.entries[3:])),))
    assert "broken_chain" in codes(compared(pair, commands, bad))


@pytest.mark.parametrize("spoil", ["order", "gap", "end", "page"])
def test_moved_or_missing_lines_break_the_chain(pair: Pair, commands: list[Command], spoil: str) -> None:
    journal = journal_of(pair.store)
    (page,) = journal.pages
    lines = list(page.entries)
    halves = JournalPage(1, page.before, tuple(lines[:3])), JournalPage(6, page.before, tuple(lines[5:]))
    pages = {
        "order": [replace(page, entries=(lines[0], lines[2], lines[1], *lines[3:]))],
        "gap": list(halves),
        "end": [replace(page, entries=tuple(lines[:-1]))],
        "page": [],
    }[spoil]
    assert "broken_chain" in codes(compared(pair, commands, replace(journal, pages=tuple(pages))))


def test_rewritten_journal_differs_from_the_verified_one(pair: Pair, commands: list[Command]) -> None:
    journal = journal_of(pair.store)
    pair.ledger.audits.mark_verified(AGENT, journal.head)
    later = forged(journal, lambda entries: entry_with(entries, "accepted").update(at="2020-01-01T00:00:00Z"))
    assert codes(compared(pair, commands, later)) == ["rewritten"]
    assert compared(pair, commands, journal).differences == ()


def test_shortened_journal_does_not_reach_the_head_in_the_status(pair: Pair, commands: list[Command]) -> None:
    journal = journal_of(pair.store)
    status_head = JournalMark(journal.head.number + 1, "1" * 64)
    assert codes(compared(pair, commands, journal, status_head=status_head)) == ["shortened"]


def test_old_entries_may_be_dropped_only_by_a_full_journal(pair: Pair, commands: list[Command]) -> None:
    entries = entries_of(journal_of(pair.store))[4:]
    cut = chained(entries, JournalMark(4, "a" * 64))
    assert "dropped_too_soon" in codes(compared(pair, commands, cut))
    padded = [dict(entry) for entry in entries]
    padded[0]["spare"] = "x" * MIN_KEPT_BYTES
    verdict = compared(pair, commands, chained(padded, JournalMark(4, "a" * 64)), status_head=JournalMark(2, "b" * 64))
    assert verdict.differences == ()
    (note,) = verdict.notes
    assert "reaches back to number 2" in note


def test_unsigned_command_is_a_difference_unless_the_agent_accepts_them(pair: Pair, commands: list[Command]) -> None:
    pair.store.store_command(replace(commands[0], id="past", sequence=None), pair.now())
    journal = journal_of(pair.store)
    assert codes(compared(pair, commands, journal)) == ["unknown_command"]
    verdict = compared(pair, commands, journal, accepts_unsigned=True)
    assert (verdict.differences, len(verdict.notes)) == ((), 1)


def test_command_of_another_agent_is_a_difference(pair: Pair, commands: list[Command]) -> None:
    pair.store.store_command(pair.send("web-02"), pair.now())
    verdict = compared(pair, commands, journal_of(pair.store))
    assert (codes(verdict)[0], "web-02" in first(verdict)) == ("other_agent", True)


def test_renumbered_command_is_not_a_difference(pair: Pair, commands: list[Command]) -> None:
    known = dict(pair.side("").known)
    old = known[commands[2].id]
    known[commands[2].id] = replace(old, sequence=replace(old.sequence, epoch=old.sequence.epoch + 1, number=1))
    assert compared(pair, commands, journal_of(pair.store), known=known).differences == ()


def test_accepted_differences_are_not_reported_again(pair: Pair, commands: list[Command]) -> None:
    pair.store.store_command(replace(commands[0], id="past", sequence=None), pair.now())
    journal = journal_of(pair.store)
    pair.ledger.audits.accept(AGENT, journal.head)
    assert compared(pair, commands, journal).differences == ()
    pair.ledger.audits.mark_verified(AGENT, journal.head)
    pair.store.store_command(replace(commands[0], id="later", sequence=None), pair.now())
    assert "command later" in first(compared(pair, commands, journal_of(pair.store)))
    other = forged(journal, lambda entries: entries[0].update(at="2020-01-01T00:00:00Z"))
    assert "command past" in first(compared(pair, commands, other))


def test_message_of_a_difference_is_bounded_and_printable(pair: Pair, commands: list[Command]) -> None:
    bad = forged(journal_of(pair.store), changed("reported", digest="\x1b[2J" + "x" * 100_000))
    message = first(compared(pair, commands, bad))
    assert message.isprintable()
    assert len(message) < 1100


def test_server_and_agent_compute_the_same_command_hash(pair: Pair, commands: list[Command]) -> None:
    known = pair.ledger.audits.look_up([commands[0].id])[commands[0].id]
    assert known.sha256 == command_sha256(commands[0])
    assert known.sha256 != command_sha256(replace(commands[0], parameters={"groups": ["a"]}))
