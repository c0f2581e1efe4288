"""Run all benchmarks (`python -m benchmarks`) or some of them (`python -m benchmarks tracing sweep`)."""

import sys
from importlib import import_module

BENCHMARKS = (
    "tracing",
    "sweep",
    "ground_truth",
    "power",
    "cache_io",
    "cache_open",
    "trace_memory",
    "sae_memory",
    "faults",
)


def main() -> None:
    """Run the benchmarks named on the command line, or all."""
    for name in sys.argv[1:] or BENCHMARKS:
        if name not in BENCHMARKS:
            sys.exit(f"There is no benchmark '{name}': choose from {', '.join(BENCHMARKS)}.")
        import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
