"""Active responses: one that is active, renewed and reversed, and a script that never answers."""

import json
from pathlib import Path

from scripts.demo.processes import console, tool, wait_for
from scripts.demo.stage import AGENT, Stage

BLOCK = """#!/bin/sh
# Uses the protocol of Wazuh 4.x; an unmodified Wazuh script would also work.
read -r REQUEST
KEY=$(echo "$REQUEST" | sed -n 's/.*"srcip":"\\([^"]*\\)".*/\\1/p')
case "$REQUEST" in *'"command":"add"'*)
    echo '{"version":1,"command":"check_keys","parameters":{"keys":["'"$KEY"'"]}}'
    read -r ANSWER
    case "$ANSWER" in *'"command":"continue"'*) echo "$KEY" >blocked ;; esac ;;
*)  rm blocked ;;
esac
"""
SILENT = "#!/bin/sh\nread -r REQUEST\nexec sleep 600\n"


def write_scripts(directory: Path) -> str:
    """Write the scripts and their allow-list; return the section of the agent's configuration."""
    scripts, allow_list = directory / "scripts", directory / "allow-list"
    scripts.mkdir(mode=0o755)
    for name, text in (("block", BLOCK), ("silent", SILENT)):
        (scripts / name).write_text(text)
        (scripts / name).chmod(0o755)
    allow_list.write_text("block - block - 600\nsilent - silent - 600\n")
    allow_list.chmod(0o644)
    return f'[active_response]\ndirectory = "{scripts}"\nallow_list = "{allow_list}"\nscript_deadline_s = 1.0\n'


def show_active_response(stage: Stage) -> None:
    blocked = stage.state / "active-responses" / "home" / "blocked"
    alert = json.dumps({"data": {"srcip": "203.0.113.7"}}, separators=(",", ":"))
    response = ("execute-active-response", "script=block", f"alert={alert}")
    stage.send("An active response: a script blocks an address for ten minutes", *response)
    (pending,) = tool("consumer", "active-responses", "--state", str(stage.state))
    console.print(f"acm-agent active-responses: {pending['script']} {pending['keys']} until {pending['reverses_at']}\n")
    stage.send("The same again, now for one second: the timer is renewed", *response, "timeout_s=1")
    wait_for(lambda: not blocked.exists(), "the reversal")
    wait_for(lambda: tool("broker", "active-responses", AGENT) == [], "the status")
    console.print("Its time is over: the script was run with [bold]delete[/bold], and no reversal is pending.\n")


def show_silent_script(stage: Stage) -> None:
    stage.send("A script that never answers is ended", "execute-active-response", "script=silent")
