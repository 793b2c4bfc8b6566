"""The project's English is plain: no pattern of scripts/words.py is in a document, a comment or a sentence."""

import pytest

from scripts.words import ROOT, RULES, Hit, hits_in, text_files

PYTHON = '''"""It is no agent."""
anew = f"made anew {1}"  # seldom
# for
# ever
'''


@pytest.mark.parametrize("name", text_files())
def test_text_is_plain_english(name: str) -> None:
    hits = hits_in(name, (ROOT / name).read_text(encoding="utf-8"))
    assert not hits, "\n".join(map(str, hits))


def test_python_is_checked_in_strings_and_comments_only() -> None:
    hits = hits_in("x.py", PYTHON)
    assert [(hit.line, hit.text) for hit in hits] == [(1, "is no agent"), (2, "anew"), (2, "seldom"), (3, "for # ever")]


@pytest.mark.parametrize(
    "text",
    [
        "There is no release yet.",
        "It is no longer valid.",
        "POST /v1/enrol",
        "taken in turn",
        "as of now",
        "the user `nobody`",
        "It enrolls and re-enrolled after the enrolment.",
    ],
)
def test_plain_english_has_no_hits(text: str) -> None:
    assert hits_in("x.md", text) == []


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("An agent is told that.", "sent"),
        ("It enrols the agent.", "enroll"),
        ("an enrollment", "enrolment"),
        ("made\nanew", "again"),
        ("The key goes\nby a list.", "uses"),
    ],
)
def test_hit_names_a_better_word(text: str, better: str) -> None:
    (hit,) = hits_in("x.md", text)
    assert better in hit.better


def test_hit_is_shown_with_path_and_line() -> None:
    assert str(Hit("a.md", 3, "anew", "'again'")) == "a.md:3: 'anew': write 'again'"
    assert len(RULES) > 20
