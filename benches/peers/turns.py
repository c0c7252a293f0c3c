"""Code shared by the comparisons: cores and threads, our side, interleaving, the table.

The speed of a machine drifts with clocks, temperature and other load, so the sides are interleaved. In every round each side
makes a few runs; a side's time is the median over rounds of the median of its runs.
"""
import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
# A run is one call, or as many as take this long: the same rule as in `clipwise speed`.
SHORTEST_RUN_MS = 20
MAX_CALLS = 10_000


def program(parser):
    """Adds the option for our program."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
    parser.add_argument("--clipwise", default=str(target / "release/clipwise"), help="our program (default %(default)s)")


def arguments(description):
    """A parser with the options that all comparisons share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads and cores of each side (default 1)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip (default 10)")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds (default 7)")
    parser.add_argument("--runs", type=int, default=3, help="timed runs per round (default 3)")
    parser.add_argument("--peers", help="comma-separated names of the peers to run (default all)")
    parser.add_argument("--without", default="", help="comma-separated names of peers to leave out, such as pytorch-compiled")
    parser.add_argument("--json", action="store_true", help="also print the result as one line of JSON")
    program(parser)
    return parser


def confine(threads):
    """Limits this process and its children to `threads` cores and threads. Call before importing numpy."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < threads:
            raise SystemExit(f"{threads} threads, but only {len(cores)} cores")
        os.sched_setaffinity(0, cores[:threads])


def ready(builders, args):
    """Builds the selected peers: name to a function without arguments. Skips a peer that cannot be built."""
    left_out = [name for name in builders if name.removesuffix("-swapped") in args.without.split(",")]
    names = args.peers.split(",") if args.peers else [name for name in builders if name not in left_out]
    unknown = [name for name in names if name not in builders]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; known are {', '.join(builders)}")
    peers = {}
    for name in names:
        try:
            peers[name] = builders[name]()
        except ImportError as error:
            print(f"{name} is skipped: {error}")
    return peers


def timed(call, calls):
    """Milliseconds per call of one run."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) * 1e3 / calls


def clipwise(program, *options):
    """The rows of `clipwise speed`, in a separate process."""
    command = [str(part) for part in (program, "speed", "--format", "json", *options)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"{program}: {error}; build it with: cargo build --release --features cli --bin clipwise")
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def build(row):
    """What a row of ours says about the program and the machine."""
    return {name: row[name] for name in ("version", "instruction_set", "cpu")}


def ours(args, *more):
    """The row of our runs."""
    return clipwise(args.clipwise, "--runs", args.runs, "--threads", args.threads, "--seconds", args.seconds, *more)[0]


def compare(title, args, peers, our_turn):
    """Times all sides, interleaved, and prints the table. `our_turn` returns a row of ours."""
    calls = {}
    for name, call in peers.items():
        timed(call, 1)  # warm-up
        calls[name] = min(max(int(SHORTEST_RUN_MS / timed(call, 1)), 1), MAX_CALLS)
    times, rows = {name: [] for name in (*peers, "clipwise")}, []
    for _ in range(args.rounds):
        for name, call in peers.items():
            times[name].append(statistics.median(timed(call, calls[name]) for _ in range(args.runs)))
        rows.append(our_turn())
        times["clipwise"].append(rows[-1]["ms"]["median"])
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"\n{title}; {args.threads} thread(s), {args.rounds} rounds of {args.runs} runs")
    print(f"{'':28} {'median ms':>10} {'min':>9} {'max':>9} {'ours / peer':>12} {'peer / ours':>12}")
    for name, values in times.items():
        ratio = medians["clipwise"] / medians[name]
        ratios = "" if name == "clipwise" else f" {ratio:12.3f} {1 / ratio:12.2f}"
        print(f"{name:28} {medians[name]:10.3f} {min(values):9.3f} {max(values):9.3f}{ratios}")
    if args.json:
        ms = {name: {"median": medians[name], "min": min(values), "max": max(values)} for name, values in times.items()}
        settings = {"title": title, "threads": args.threads, "rounds": args.rounds, "runs": args.runs}
        print(json.dumps({**settings, "ms": ms, "clipwise": build(rows[-1])}), flush=True)
