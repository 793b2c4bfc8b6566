"""The wall clock of server and agent jumps by seconds to years, both ways, while commands run and processes die.

The clock is that of clock.c, which is loaded into both processes; a C compiler makes it.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.faults.site import SETTLE_S, faulty_site
from tests.faults.tally import Budget, Tally

__all__ = ["compiled", "loop"]


_SOURCE = Path(__file__).with_name("clock.c")
_JUMPS_S = (1, 60, 3_600, 86_400, 30 * 86_400, 400 * 86_400)


def loop(budget: Budget) -> Tally:
    """Set the clock at random, send commands, and kill one of the two now and then."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="acm-faults-clock-") as directory:
        library, offset = compiled(Path(directory) / "clock.so"), Path(directory) / "offset"
        offset.write_text("0")
        with faulty_site(LD_PRELOAD=str(library), ACM_FAULTS_CLOCK=str(offset)) as site:
            for _ in budget.rounds(reserve_s=SETTLE_S):
                site.send(3)
                offset.write_text(str(budget.random.choice((-1, 1)) * budget.random.choice(_JUMPS_S)))
                tally.counts["jumps"] += 1
                site.send(1)
                victim = budget.random.choice(("agent", "server", "none", "none"))
                if victim == "agent":
                    site.ends_within(site.agent, budget)
                    site.start_agent()
                elif victim == "server":
                    site.ends_within(site.server, budget)
                    site.start_server()
                tally.counts["kills"] += victim != "none"
            offset.write_text("0")
            site.settle(tally)
    return tally


def compiled(library: Path) -> Path:
    """Compile clock.c to this file, for LD_PRELOAD, and return its path."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "A C compiler is missing: apt-get install gcc libc6-dev"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library
