"""`make plots`: draws docs/plots/*.svg from the JSON that the benchmarks have left in build/."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

_BUILD, _PLOTS = Path("build"), Path("docs/plots")
_PER_SECOND = "commands/s"
_AT_SIZE = re.compile(r"(.+), ms at ([\d,]+)")
_SIZE = (8.0, 4.5)
_COLOURS, _STYLES = 10, ("-", "--", ":")


def main() -> None:
    """Draw what there are results for, and say what is missing."""
    plt.rcParams["svg.hashsalt"] = "acm"  # the same results make the same file
    _PLOTS.mkdir(parents=True, exist_ok=True)
    for name, draw in (("bench", _draw_agent), ("bench-server", _draw_server), ("bench-ledger", _draw_ledger)):
        path = _BUILD / f"{name}.json"
        if path.exists():
            draw(json.loads(path.read_text(encoding="utf-8"))["rows"])
        else:
            print(f"{path} is missing: run make {name}")


def _draw_agent(rows: dict[str, Any]) -> None:
    """Draw the rate of each program, with all rounds."""
    rates = rows.get("saturated", {}).get("rates")
    if rates is None:
        return
    figure, axes = plt.subplots(figsize=_SIZE)
    axes.boxplot(list(rates.values()), tick_labels=list(rates))
    axes.set_ylabel(_PER_SECOND)
    axes.set_ylim(bottom=0)
    _save(figure, "agent")


def _draw_server(rows: dict[str, Any]) -> None:
    """Draw the rates of our server and of the naive one for each size of the fleet."""
    sizes = {name: row["figures"] for name, row in rows.items() if f"naive: {_PER_SECOND}" in row["figures"]}
    if not sizes:
        return
    figure, axes = plt.subplots(figsize=_SIZE)
    places = range(len(sizes))
    for shift, (label, prefix) in ((-0.2, ("acm server", "")), (0.2, ("naive", "naive: "))):
        rates = [figures[f"{prefix}{_PER_SECOND}"] for figures in sizes.values()]
        axes.bar([place + shift for place in places], rates, width=0.4, label=label)
    axes.set_xticks(list(places), list(sizes))
    axes.set_ylabel(_PER_SECOND)
    axes.legend()
    _save(figure, "server")


def _draw_ledger(rows: dict[str, Any]) -> None:
    """Draw for each database what each call takes, by the size of the ledger."""
    for name, row in rows.items():
        lines: dict[str, list[tuple[int, float]]] = {}
        for figure_name, value in row["figures"].items():
            if found := _AT_SIZE.fullmatch(figure_name):
                lines.setdefault(found[1], []).append((int(found[2].replace(",", "")), value))
        if not lines:
            continue
        figure, axes = plt.subplots(figsize=(_SIZE[0], 2 * _SIZE[1]))
        for number, (label, points) in enumerate(lines.items()):
            style = _STYLES[number // _COLOURS % len(_STYLES)]
            axes.loglog(*zip(*points, strict=True), style, marker=".", label=label)
        axes.set_xlabel("finished commands")
        axes.set_ylabel("ms")
        axes.legend(fontsize="xx-small", loc="center left", bbox_to_anchor=(1, 0.5))
        _save(figure, f"ledger-{name}")


def _save(figure: Any, name: str) -> None:
    path = _PLOTS / f"{name}.svg"
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    print(path)


if __name__ == "__main__":
    main()
