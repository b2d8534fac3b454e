"""`make bench`: measurements, one after the other; each prints its JSON.

python -m bench                     the CPU set
python -m bench unary cancel        these
python -m bench --list              what there is
python -m bench --save …            keep the JSON in bench/results/
"""

import argparse
import ast
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.measure import Others

CPU_SET = (
    "start",
    "encode",
    "blob_read",
    "stdio_calls",
    "stdio_picture",
    "unary",
    "ttfp",
    "cancel",
    "serve_overhead",
    "engine_step",
    "conc8",
    "conc8_controls",
    "mixed_steps",
    "solver_step",
    "join_full_batch",
    "determinism",
    "load_cpu",
    "lora",
    "cached_reads",
    "loop_lag",
    "watch_cost",
    "shared_memory",
    "hot_plug",
    "worker_restart",
    "stored_jobs",
    "model_scan",
    "plan",
)
BY_NAME_ONLY = (
    "csharp_client",
    "killed_at_each_step",
    "cuda_compile",
    "cuda_controls",
    "cuda_device",
    "cuda_families",
    "cuda_layers",
    "cuda_load",
    "cuda_picture",
    "cuda_quantized",
    "cuda_short_of_memory",
    "cuda_ways",
)
"""Those that need more than a CPU and Python (a .NET SDK, or a GPU), or take many minutes."""


_LOOK_S = 1.0
"""How long the machine is looked at before anything is measured."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for. Returns how many missed their target; 2 for a name that is not known."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, against a peer in the same run.")
    known = (*CPU_SET, *BY_NAME_ONLY)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; nothing: the CPU set")
    parser.add_argument("--list", action="store_true", help="tell what there is, and measure nothing")
    parser.add_argument("--save", action="store_true", help="keep the JSON in bench/results/")
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.names if name not in known]:
        parser.error(f"there is no {', '.join(unknown)}; known: {', '.join(known)}")
    if asked.list:
        wide = max(map(len, known)) + 2
        try:
            print("\n".join(f"{name:<{wide}}{about(name)}" for name in known), flush=True)
        except BrokenPipeError:
            # Who reads the first lines alone has what they want. The interpreter writes once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    others = Others()
    time.sleep(_LOOK_S)
    if busy := others.doubt():
        print(f"bench: {busy}: do not believe these figures", file=sys.stderr)
    flags = ["--save"] if asked.save else []
    return sum(
        subprocess.run([sys.executable, "-m", f"bench.{name}", *flags]).returncode != 0
        for name in asked.names or CPU_SET
    )


def about(name: str) -> str:
    """The first line of a measurement's own description, without running it."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    raise SystemExit(main())
