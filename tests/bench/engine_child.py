"""One contender, in a process of its own: `python tests/bench/engine_child.py PLAN`.

PLAN is a JSON file that `tests/bench/engine.py` writes: who, the set-up and the loads. The figures
are put beside it, into PLAN.figures.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[2])

from tests.bench.engine_loads import from_json, put  # noqa: E402


def measure(plan: dict[str, Any]) -> dict[str, Any]:
    """Warm up, then one load after the other."""
    who, setup = plan["who"], plan["setup"]
    loads = from_json(plan["loads"])
    warm = loads.pop("warm")
    if who == "share":
        from tests.bench.engine_ours import shares

        return shares(setup, warm)
    found: dict[str, Any] = {}
    contender: Any
    if who == "ours":
        from tests.bench.engine_ours import Ours

        contender = Ours(setup)
    else:
        from tests.bench import engine_peers as peers

        if who == "server_unified":
            contender = peers.Server(setup, "--kv-unified")
        else:
            contender = {"server": peers.Server, "wheel": peers.Wheel, "prefork": peers.Plain}[who](
                setup
            )
    try:
        if who == "prefork":
            contender.put(warm[: 2 * setup["cores"]])
            return {name: asdict(contender.put(load)) for name, load in loads.items()}
        put(contender, "warm", warm[:2])
        if who == "ours":
            contender.profile()
        for name, load in loads.items():
            found[name] = asdict(put(contender, name, load))
            if who == "ours":
                found[name]["profile"] = contender.profile()
    finally:
        contender.close()
    return found


if __name__ == "__main__":
    path = Path(sys.argv[1])
    figures = measure(json.loads(path.read_text()))
    path.with_suffix(".figures").write_text(json.dumps(figures))
