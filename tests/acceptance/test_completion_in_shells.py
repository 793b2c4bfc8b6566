"""What the scripts of `acm completion` complete in the shells themselves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from broker.app.contexts import ApiContext, Contexts, contexts_file
from broker.app.factories import open_ledger
from broker.contract.messages import Origin
from broker.ledger.enqueue import CommandRequest
from tests.support.terminal import Terminal

pytestmark = pytest.mark.own_ledger

PROGRAMS = Path(sys.executable).parent
# Bash calls the function of the script as it would after a tab, with the words of the line, and prints the answers.
BASH = """
. "$1"
COMP_WORDS=($2)
[[ $2 != *" " ]] || COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { true; }
_acm_completion acm
printf '%s\\n' "${COMPREPLY[@]}"
"""
# A tab completes, writes down what the completion has added, and then the whole line.
ZSHRC = """
fpath=(~/functions $fpath)
autoload -Uz compinit
compinit -u -d ~/dump
compadd() { local -a added; builtin compadd -O added "$@"; print -rl -- $added >> ~/added; builtin compadd "$@" }
tab() { zle complete-word; print -rn -- "<$BUFFER>" }
zle -N tab
bindkey '^I' tab
PS1='READY:'
"""


class User:
    """A user with a ledger of three agents, a context, and the completion of a shell where that finds it."""

    def __init__(self, directory: Path, shell: str) -> None:
        if shutil.which(shell) is None:
            assert os.environ.get("ACM_REQUIRE_DOCKER") != "1", f"there is no {shell}: run scripts/shells.sh"
            pytest.skip(f"there is no {shell}; scripts/shells.sh installs it")
        self.directory, self.shell = directory, shell
        url = f"sqlite:///{directory}/ledger.db"
        with open_ledger(url) as ledger:
            request = CommandRequest("restart-agent", {}, Origin("me", "test"))
            self.operation = ledger.add_operation(["web-01", "web-02", "db-01"], "all", request).id
            self.commands = {row.command.id for row in ledger.commands()}
        self.environment = {
            "ACM_LEDGER": url,
            "HOME": str(directory),
            "XDG_CONFIG_HOME": str(directory / "config"),
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        }
        places = {"bash": "acm.bash", "zsh": "functions/_acm", "fish": "config/fish/completions/acm.fish"}
        self.script = directory / places[shell]
        self.script.parent.mkdir(parents=True, exist_ok=True)
        self.script.write_text(self._run(str(PROGRAMS / "acm"), "completion", shell))
        contexts_file(self.environment).change(lambda _: Contexts(None, {"prod": ApiContext("https://a", "t")}))

    def completed(self, line: str) -> set[str]:
        """Return what the shell offers for the last word of a line, without descriptions."""
        if self.shell == "bash":
            return {*self._run("bash", "-c", BASH, "bash", str(self.script), line).splitlines()}
        if self.shell == "fish":
            asked = self._run("fish", "-c", 'complete -C "$argv[1]"', line)
            return {it.partition("\t")[0] for it in asked.splitlines()}
        return self._completed_by_zsh(line)

    def _completed_by_zsh(self, line: str) -> set[str]:
        self.line_after_tab(line)
        added = self.directory / "added"
        return {*added.read_text().split()} if added.exists() else set()

    def line_after_tab(self, line: str) -> str:
        """Type a line and a tab in a new zsh, and return what the line is then."""
        (self.directory / ".zshrc").write_text(ZSHRC)
        (self.directory / "added").unlink(missing_ok=True)
        zsh = Terminal(["zsh", "-d", "-i"], self.directory, {**self.environment, "ZDOTDIR": str(self.directory)}, 200)
        zsh.read_until("READY:")
        zsh.type(f"{line}\t")
        zsh.read_until(">")
        zsh.type("\x15exit\n")
        zsh.wait()
        return zsh.shown.rpartition("<")[2].partition(">")[0]

    def _run(self, *argv: str) -> str:
        environment = {**os.environ, **self.environment}
        done = subprocess.run(argv, env=environment, cwd=self.directory, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_agents_types_parameters_ids_and_contexts_are_completed(tmp_path: Path, shell: str) -> None:
    user = User(tmp_path, shell)
    assert user.completed("acm send we") == {"web-01", "web-02"}
    assert user.completed("acm send web-01 restart") == {"restart-agent"}
    assert user.completed("acm send web-01 restart-agent ") == {"delay_s="}
    assert user.completed("acm show ") == {*user.commands, user.operation}
    assert user.completed("acm operation cancel ") == {user.operation}
    assert user.completed("acm context use ") == {"prod"}
    assert user.completed("acm se") == {"send", "server"}
    assert user.completed("acm commands --out") == {"--outcome", "--output"}


def test_the_first_tab_of_a_zsh_completes_and_leaves_room_for_the_value(tmp_path: Path) -> None:
    user = User(tmp_path, "zsh")
    assert user.line_after_tab("acm send d") == "acm send db-01 "
    assert user.line_after_tab("acm send web-01 restart-agent ") == "acm send web-01 restart-agent delay_s="


def test_the_tab_of_a_bash_leaves_room_for_the_value(tmp_path: Path) -> None:
    user = User(tmp_path, "bash")
    bash = Terminal(["bash", "--norc", "-i"], tmp_path, {**user.environment, "PS1": "READY:"}, 200)
    bash.type(f". {user.script}\nacm send web-01 restart-agent \t")
    bash.read_until("restart-agent delay_s=")
    bash.type("3\x01echo \x05\nexit\n")
    bash.wait()
    assert "\racm send web-01 restart-agent delay_s=3\r\n" in bash.shown
