"""What `tests/bench/engine.py` makes of its rounds: ratios, and a table with the aims. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

AIMS = {
    "w1_vs_server": 1.0,
    "w2_vs_server": 2.0,
    "w3_vs_server": 0.98,
    "w3_ttft_p95_vs_server": 1.0,
    "w3_burst_vs_server": 1.0,
    "w4_vs_server": 1.0,
    "w1_vs_prefork": 1.4,
    "w2_vs_prefork": 3.0,
    "python_share_16": 0.03,
    "python_step_ms_16": 0.5,
}
AT_MOST = {"w3_ttft_p95_vs_server", "python_share_16", "python_step_ms_16"}
"""Where less is better."""

Rounds = Sequence[dict[str, Any]]


def ratios(rounds: Rounds) -> dict[str, float]:
    """This engine's figures over the others', within a round, the medians of the rounds."""
    found = {}
    others = [who for who in (rounds[0] if rounds else {}) if who != "ours"]
    for who in others:
        for load in _loads(rounds, who):
            found[f"{load}_vs_{who}"] = _ratio(rounds, who, load, "tokens_per_s")
        if "w3" in _loads(rounds, who):
            found[f"w3_ttft_p95_vs_{who}"] = _ratio(rounds, who, "w3", "ttft_p95_ms")
    return {name: round(value, 3) for name, value in found.items() if value is not None}


def _loads(rounds: Rounds, who: str) -> list[str]:
    return list(rounds[0].get(who, {})) if rounds else []


def _ratio(rounds: Rounds, who: str, load: str, figure: str) -> float | None:
    each = [
        one["ours"][load][figure] / one[who][load][figure]
        for one in rounds
        if load in one.get("ours", {}) and load in one.get(who, {})
    ]
    return statistics.median(each) if each else None


def verdict(name: str, value: float) -> str:
    """The aim, and whether it was met or by how much not."""
    aim = AIMS.get(name)
    if aim is None:
        return ""
    less = name in AT_MOST
    if value <= aim if less else value >= aim:
        return f"aim {aim:g}: met"
    return f"aim {aim:g}: missed by {abs(value - aim) / aim:.0%}"


def table(document: dict[str, Any]) -> str:
    """For people."""
    rounds: Rounds = document["rounds"]
    lines = [
        f"{'':22}{'tokens/s':>24}{'TTFT p50':>10}{'p95 ms':>9}{'TPOT p50':>10}{'p95 ms':>8}",
    ]
    loads = dict.fromkeys(load for one in rounds for who in one for load in one[who])
    for load in loads:
        for who in rounds[0]:
            mine = [one[who][load] for one in rounds if load in one.get(who, {})]
            if mine:
                lines.append(f"{load + ' ' + who:22}{_row(mine, plain=who == 'prefork')}")
    lines.append("")
    for name, value in document.items():
        if isinstance(value, int | float):
            lines.append(f"{name:28}{value:10.3f}   {verdict(name, value)}".rstrip())
    lines += ["", *_profile(rounds)]
    facts = document["circumstances"]
    lines.append("")
    lines += [f"{name}: {value}" for name, value in facts.items()]
    return "\n".join(lines)


def _row(found: Sequence[dict[str, float]], *, plain: bool) -> str:
    speeds = [one["tokens_per_s"] for one in found]
    spread = f"{statistics.median(speeds):.1f} [{min(speeds):.1f}-{max(speeds):.1f}]"
    if plain:
        return f"{spread:>24}"

    def middle(figure: str) -> float:
        return statistics.median(one[figure] for one in found)

    return (
        f"{spread:>24}{middle('ttft_p50_ms'):10.0f}{middle('ttft_p95_ms'):9.0f}"
        f"{middle('tpot_p50_ms'):10.1f}{middle('tpot_p95_ms'):8.1f}"
    )


def _profile(rounds: Rounds) -> list[str]:
    """Where this engine's time went: what an aim that was missed is to be looked for in."""
    lines = []
    for load in _loads(rounds, "ours"):
        of = [one["ours"][load]["profile"] for one in rounds]
        middle: Callable[[str], float] = lambda name, of=of: statistics.median(  # noqa: E731
            one[name] for one in of
        )
        lines.append(
            f"ours {load}: {middle('decode_share'):.1%} in llama_decode, "
            f"{middle('sampling_share'):.1%} sampling, {middle('python_share'):.1%} Python; "
            f"{middle('rows_per_step'):.1f} sequences a step of {middle('step_ms'):.1f} ms; "
            f"prompts: {middle('prefilled'):.0f} tokens computed, {middle('reused'):.0f} shared"
        )
    return lines
