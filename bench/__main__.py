"""`make bench`: the CPU set, one after the other; each prints its JSON. `--save` keeps it in bench/results/."""

import subprocess
import sys

CPU_SET = (
    "start",
    "encode",
    "blob_read",
    "unary",
    "ttfp",
    "cancel",
    "serve_overhead",
    "engine_step",
    "cached_reads",
    "loop_lag",
    "watch_cost",
    "shared_memory",
    "hot_plug",
    "worker_restart",
    "stored_jobs",
)


def main() -> int:
    """How many missed their target."""
    return sum(
        subprocess.run([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]]).returncode != 0 for name in CPU_SET
    )


if __name__ == "__main__":
    raise SystemExit(main())
