"""Active response scripts as their authors write them for Wazuh 4.x, and some that do what they should not.

The first two keep a journal, a line for each effect, in their working directory, and exchange the messages as the
examples of Wazuh's documentation do.
"""

import os
from pathlib import Path

__all__ = ["BAD", "PYTHON", "SHELL", "STATELESS", "TOLERATED", "install"]

PYTHON = """#!/usr/bin/env python3
import json
import sys


def first_line():
    for line in sys.stdin:
        return line
    return ""


def next_line():
    while True:
        line = sys.stdin.readline()
        if line:
            return line


def note(word, key):
    with open("journal", "a") as journal:
        journal.write(word + " " + key + "\\n")
    with open("logs/active-responses.log", "a") as log:
        log.write(sys.argv[0] + ": " + word + "\\n")


request = json.loads(first_line())
key = request["parameters"]["alert"]["rule"]["id"]
if request["command"] == "add":
    check = {"version": 1, "origin": {"name": sys.argv[0], "module": "active-response"}, "command": "check_keys",
             "parameters": {"keys": [key]}}
    print(json.dumps(check))
    sys.stdout.flush()
    answer = json.loads(next_line())
    if answer["command"] == "abort":
        note("aborted", key)
        sys.exit(0)
    if answer["command"] != "continue":
        sys.exit(-1)
    note("add", key)
elif request["command"] == "delete":
    note("delete", key)
else:
    sys.exit(-1)
sys.exit(0)
"""

SHELL = """#!/bin/sh
LOCAL=$(dirname "$0")
read -r INPUT_JSON
COMMAND=$(echo "$INPUT_JSON" | sed -n 's/.*"command":"\\([a-z]*\\)".*/\\1/p')
KEY=$(echo "$INPUT_JSON" | sed -n 's/.*"id":"\\([^"]*\\)".*/\\1/p')
if [ "$COMMAND" = add ]; then
    printf '{"version":1,"origin":{"name":"shell","module":"active-response"},"command":"check_keys",'
    printf '"parameters":{"keys":["%s"]}}\\n' "$KEY"
    read -r RESPONSE
    COMMAND2=$(echo "$RESPONSE" | sed -n 's/.*"command":"\\([a-z]*\\)".*/\\1/p')
    if [ "$COMMAND2" != continue ]; then
        echo "aborted $KEY" >>journal
        exit 0
    fi
fi
echo "$COMMAND $KEY" >>journal
cd "$LOCAL" && cd ../ && echo "$0: $COMMAND" >>"$(pwd)/../logs/active-responses.log"
"""

STATELESS = """#!/bin/sh
read -r INPUT_JSON
printf '%s\\n' "$INPUT_JSON" >>journal
echo done >&2
"""

_READ = "#!/bin/sh\nread -r REQUEST\n"
_ASK = """echo '{"command":"check_keys","parameters":{"keys":["k"]}}'\nread -r ANSWER\n"""
_ON_DELETE = """case "$REQUEST" in *'"command":"delete"'*) %s;; esac\n"""

BAD = {
    "exits-3": _READ + "echo 'no firewall here' >&2; exit 3\n",
    "fails-later": _READ + _ON_DELETE % "exit 0" + _ASK + "exit 3\n",
    "silent": _READ + "sleep 600\n",
    "reads-all": "#!/bin/sh\nREQUEST=$(cat)\n",
    "ignores-term": _READ + "trap '' TERM; while :; do sleep 1; done\n",
    "floods": _READ + "exec cat /dev/zero\n",
    "floods-lines": _READ + "exec yes\n",
    "floods-later": _READ + _ASK + "exec yes\n",
    "delete-fails": _READ + _ON_DELETE % "echo tried >>journal; echo 'still there' >&2; exit 4" + _ASK,
}

_NOTE = """case "$REQUEST" in *'"command":"add"'*) echo add;; *) echo delete;; esac >>journal\n"""
TOLERATED = {
    "greets": _READ + "echo 'got an alert'\nread -r ANSWER\necho \"$ANSWER\" >answer\n" + _NOTE,
    "greets-and-ends": _READ + "echo 'got an alert'\n" + _NOTE,
    "greets-without-line-feed": _READ + "printf 'got an alert'\n" + _NOTE,
    "echoes": _READ + 'echo "$REQUEST"\nread -r ANSWER\n' + _NOTE,
    "other-json": _READ + """echo '{"command":"check_keys","parameters":{}}'\nread -r ANSWER\n""" + _NOTE,
    "reads-the-rest": _READ + _ASK.replace("read -r ANSWER", "ANSWER=$(cat)") + _NOTE,
    "reads-the-rest-silently": _READ + "exec >&-\nANSWER=$(cat)\n" + _NOTE,
    "plain": _READ.removeprefix("#!/bin/sh\n") + _ASK + _NOTE,
    "leaves-a-daemon": _READ + _ASK + "sleep 600 &\necho $! >>daemons\n" + _NOTE,
}
"""Scripts that Wazuh's execd runs to their end, though they break the protocol or the rules of daemons."""


def install(directory: Path, name: str, text: str) -> Path:
    """Write a script that only its owner can change."""
    directory.mkdir(mode=0o755, exist_ok=True)
    path = directory / name
    path.write_text(text)
    os.chmod(path, 0o755)
    return path
