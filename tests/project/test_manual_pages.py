"""The manual pages are complete and well-formed, and docs/acm.md lists every environment variable."""

import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from broker.app.config import OUTSIDE_OF_SECTIONS
from consumer.settings import AgentConfig
from scripts.manpages import PROGRAMS, main, pages, variables
from tests.support.cli import commands_of

AGENT_FIELDS = msgspec.structs.fields(AgentConfig)
SETTINGS = {
    "acm": OUTSIDE_OF_SECTIONS,
    "acm-agent": tuple(it.name for it in AGENT_FIELDS if not hasattr(it.type, "__struct_fields__")),
}
MACROS = {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".br", ".nf", ".fi", ".nh", ".ad"}


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def shown(page: str) -> str:
    """Return the words of a page as a reader sees them."""
    return re.sub(r"\\f[BIR]|\\[&:]", "", page).replace(r"\-", "-").replace(r"\(aq", "'")


def test_every_command_has_a_page_with_its_options_and_example(program: str) -> None:
    written = {name: shown(page) for name, page in pages(program).items()}
    for words, command in commands_of(PROGRAMS[program]):
        if command.hidden:
            assert f"{program}-{words}" not in written
            continue
        page = written[f"{program}-{words.split()[0]}"]
        assert f"{program} {words} [OPTIONS]" in page
        options = [it.opts[0] for it in command.params if it.param_type_name == "option" and not it.hidden]
        assert [option for option in options if f"\n{option}" not in page and f", {option}" not in page] == []
        assert f"\n.B {program} {words}" in page
    listed = set(re.findall(rf"\n({program}-[a-z-]+)\(1\)\n", written[program]))
    assert listed - set(PROGRAMS) == set(written) - {program}


def test_page_of_the_program_has_exit_codes_and_variables(program: str) -> None:
    page = shown(pages(program)[program])
    assert "\n130\nInterrupted by Ctrl-C (INT)" in page
    assert "\nACM_LOG_LEVEL\n" in page


def test_pages_are_well_formed(tmp_path: Path) -> None:
    (tmp_path / "acm-removed.1").write_text("")
    main([str(tmp_path)])
    files = sorted(tmp_path.iterdir())
    assert "acm-removed.1" not in [path.name for path in files]
    for path in files:
        lines = path.read_text(encoding="ascii").splitlines()
        requests = [line for line in lines if line.startswith((".", "'"))]
        assert {line.split()[0] for line in requests} <= MACROS, path
        assert all(lines), path
    if shutil.which("groff"):
        checked = subprocess.run(
            ["groff", "-man", "-ww", "-z", "-Tutf8", *map(str, files)], capture_output=True, text=True, timeout=60
        )
        assert checked.stderr == ""


def test_document_lists_every_variable(program: str) -> None:
    settings = {f"ACM_{name.upper()}" for name in SETTINGS[program]}
    of_options = {
        it.envvar for _, command in commands_of(PROGRAMS[program]) for it in command.params if it.envvar is not None
    }
    listed = {name for names, _ in variables(program) for name in names}
    assert (settings | of_options) - listed == set()
