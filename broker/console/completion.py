"""The scripts by which a shell completes the words of a program, and what the program needs to answer them."""

from enum import StrEnum
from typing import Annotated

import typer

__all__ = [
    "Shell",
    "ShellArgument",
    "completion_script",
    "completion_variable",
    "prepare_completion",
]


class Shell(StrEnum):
    """A shell whose completion is supported."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


ShellArgument = Annotated[Shell, typer.Argument(help="The shell.")]

# After `delay_s=` its value follows, so no shell may add a space there. fish adds none by itself.
_BASH = """\
$FUNCTION() {
    local IFS=$'\\n'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD $VARIABLE=complete_bash $1 ) )
    [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace
}

complete -o default -F $FUNCTION $PROGRAM"""
# A file in `fpath` is loaded, and thus run, at the first use of its function, which must complete then already.
_ZSH = """\
#compdef $PROGRAM

$FUNCTION() {
  local answer="$(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" $VARIABLE=complete_zsh $PROGRAM)"
  local -a unfinished=(${(M)${(ps:\\x22:)answer}:#*=})
  if (( $#unfinished )); then
    compadd -S '' -a unfinished
  else
    eval $answer
  fi
}

compdef $FUNCTION $PROGRAM
[[ $zsh_eval_context[-1] != loadautofunc ]] || $FUNCTION "$@\""""
_FISH = """\
complete --command $PROGRAM --no-files \
--arguments "(env $ASK=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) $PROGRAM)" \
--condition "env $ASK=is-args _TYPER_COMPLETE_ARGS=(commandline -cp) $PROGRAM\""""
_SCRIPTS = {Shell.BASH: _BASH, Shell.ZSH: _ZSH, Shell.FISH: _FISH}


def completion_script(program: str, shell: Shell) -> str:
    """Return the script that lets a shell ask the program what may follow; it ends without a line feed."""
    variable = completion_variable(program)
    words = {
        "$FUNCTION": f"_{program.replace('-', '_')}_completion",
        "$PROGRAM": program,
        "$VARIABLE": variable,
        "$ASK": f"{variable}=complete_fish _TYPER_COMPLETE_FISH_ACTION",
    }
    script = _SCRIPTS[shell]
    for word, value in words.items():
        script = script.replace(word, value)
    return script


def completion_variable(program: str) -> str:
    """Return the name of the environment variable by which the scripts ask the program."""
    return f"_{program.replace('-', '_').upper()}_COMPLETE"


def prepare_completion() -> None:
    """Let the program answer in the forms of typer's scripts, which it does not without typer's own options."""
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()
