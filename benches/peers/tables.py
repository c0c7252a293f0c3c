#!/usr/bin/env python3
"""Measures every speed that the documentation states, and prints the tables.

    tables.py --references FOLDER --results results.jsonl --write docs/performance.md

FOLDER holds the checkouts that taggers.py names; without it, their rows are left out. Each row is measured by a script of this
folder in a process of its own, with ours and the peers interleaved, and added to the results file as a line of JSON. `--only`
selects rows by a part of their name or command; the other rows keep their last results. `--print-only` measures nothing.
`--write` replaces the tables between the markers in a page.
"""
import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from turns import PROJECT, program

HERE = Path(__file__).resolve().parent
RUNTIMES = {"onnxruntime": "onnxruntime", "OpenVINO": "openvino", "PyTorch": "pytorch"}
# Table: its columns with the prefix of their peers, and its rows: name and command.
TABLES = {
    "f32": (
        RUNTIMES,
        {
            "CED-tiny, 10 s": "trunk.py --model ced-tiny",
            "Whisper tiny's encoder, 30 s": "whisper.py",
            "Whisper-AT tiny, one window": "taggers.py --model whisper-at",
            "CNN14, 10 s": "trunk.py --model cnn14",
            "CNN14, 10 s, 2 threads": "trunk.py --model cnn14 --threads 2",
            "CNN14 with 1/8 of the channels, 10 s": "trunk.py --model cnn14-narrow",
            "LeeNet11, 10 s": "trunk.py --model leenet11",
            "LeeNet11, 10 s, 2 threads": "trunk.py --model leenet11 --threads 2",
            "M5, 1 s": "trunk.py --model m5 --seconds 1",
            "M5, 64 clips of 1 s": "trunk.py --model m5 --seconds 1 --batch 64",
            "YAMNet, 10 s": "taggers.py --model yamnet",
            "mn04, 10 s": "taggers.py --model mn04",
            "mn10, 10 s": "taggers.py --model mn10",
            "ConvNeXt-Tiny, 10 s": "taggers.py --model convnext-tiny",
            "TCN, 10 s": "taggers.py --model tcn",
            "GRU, 1000 frames": "trunk.py --model gru",
            "GRU, 16 x 1000 frames": "trunk.py --model gru --batch 16",
            "LSTM, 1000 frames": "trunk.py --model lstm",
            "LSTM, 16 x 1000 frames": "trunk.py --model lstm --batch 16",
        },
    ),
    "reduced": (
        {"onnxruntime int8": "onnxruntime-int8", "OpenVINO int8": "openvino-int8", "OpenVINO bf16": "openvino-bf16"},
        {
            "CED-tiny, 10 s, int8": "trunk.py --model ced-tiny --precision int8",
            "Whisper tiny's encoder, 30 s, int8": "whisper.py --precision int8",
        },
    ),
    "front-end": (
        {"torchlibrosa": "torchlibrosa", "librosa": "librosa", "torchaudio": "torchaudio"},
        {"log-mel, 10 s at 32 kHz": "log_mel.py"},
    ),
    "load": (None, {"CNN14": "load.py --model cnn14", "CED-tiny": "load.py --model ced-tiny"}),
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--references", help="the folder with the checkouts of taggers.py")
parser.add_argument("--results", default=str(PROJECT / "target/peers.jsonl"), help="the results file (default %(default)s)")
parser.add_argument("--only", help="a regular expression that rows or commands must contain")
parser.add_argument("--without", default="", help="comma-separated names of peers to leave out, such as pytorch-compiled")
parser.add_argument("--rounds", type=int, default=7, help="number of rounds (default 7)")
parser.add_argument("--minima", action="store_true", help="show the shortest times instead of medians: for a machine that is not quiet")
parser.add_argument("--print-only", action="store_true", help="print the tables of the results file")
parser.add_argument("--write", metavar="PAGE", help="also replace the tables in this page")
program(parser)
args = parser.parse_args()


def measure(row, command):
    """Runs a script; returns its result, or nothing if it failed, which is printed."""
    script, *options = command.split()
    options += ["--rounds", str(args.rounds), "--clipwise", args.clipwise, f"--without={args.without}", "--json"]
    if script == "taggers.py":
        options += ["--references", args.references or "."]
    warnings = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, str(HERE / script), *options], capture_output=True, text=True, env=warnings)
    if done.returncode:
        print(f"{row}: {command} failed: {done.stderr.strip().splitlines()[-1:]}")
        return None
    *shown, result = done.stdout.strip().splitlines()
    print("\n".join(shown), flush=True)
    return {"row": row, "command": command, "date": str(datetime.date.today()), **json.loads(result)}


def number(x):
    """With three digits."""
    return f"{x:.3g}" if x < 100 else f"{x:.0f}"


def times_row(columns, row, command, result):
    ms = {name: side["min" if args.minima else "median"] for name, side in result["ms"].items()}
    ours = ms.pop("clipwise")
    cells = []
    for prefix in columns.values():
        of_column = {name: value for name, value in ms.items() if name == prefix or name.startswith(prefix + "-")}
        best = min(of_column, key=of_column.get, default=None)
        form = best and best.removeprefix(prefix).replace("-", " ")
        cells.append(f"{number(ms[best])}{form} ({ours / ms[best]:.2f})" if best else "–")
    return [row, number(ours), *cells, f"**{ours / min(ms.values()):.2f}**", f"`{command}`"]


def load_row(row, command, result):
    cells = []
    for side in (result["load"][name] for name in ("clipwise", "onnxruntime")):
        cells.append(f"{side['open']:.0f} / {side['result']:.0f} ms, {side['peak']:.0f} MB")
    ours, theirs = (result["load"][name]["result"] for name in ("clipwise", "onnxruntime"))
    return [row, *cells, f"**{ours / theirs:.2f}**", f"`{command}`"]


def table(name, results):
    columns, rows = TABLES[name]
    titles = ["work", "clipwise", *(columns or ["onnxruntime"]), "clipwise / fastest" if columns else "ratio", "command"]
    lines = [titles, ["---"] * len(titles)]
    for row, command in rows.items():
        if row in results:
            lines.append(times_row(columns, row, command, results[row]) if columns else load_row(row, command, results[row]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(lines) > 2 else "Not measured yet."


def machine(results):
    """A line about where and with what the results were measured."""
    here = next(iter(results.values()))["clipwise"]
    dates = sorted({result["date"] for result in results.values()})
    rounds = sorted({result["rounds"] for result in results.values()})
    packages = [f"{package} {version(package)}" for package in ("onnxruntime", "openvino", "torch")]
    processor = f"{here['cpu'] or platform.machine()}, {here['instruction_set']}"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    extra = [name for name in ("avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16") if re.search(rf"\b{name}\b", flags)]
    processor += f" (also {', '.join(extra)})" if extra else ""
    what = "shortest times" if args.minima else "medians"
    what += f" of {rounds[0]}{f' to {rounds[-1]}' if len(rounds) > 1 else ''} interleaved rounds"
    return f"Measured on {dates[-1]}: clipwise {here['version']}, {', '.join(packages)}; {processor}; {what}."


def stored():
    """The last result of each row."""
    path = Path(args.results)
    lines = path.read_text().splitlines() if path.exists() else []
    return {result["row"]: result for result in map(json.loads, lines)}


for _, rows in TABLES.values():
    for row, command in rows.items():
        selected = not args.only or re.search(args.only, f"{row} {command}")
        needs_checkout = command.startswith("taggers.py") and "yamnet" not in command
        if args.print_only or not selected or (needs_checkout and not args.references):
            continue
        result = measure(row, command)
        if result:
            Path(args.results).parent.mkdir(parents=True, exist_ok=True)
            with open(args.results, "a") as file:
                file.write(json.dumps(result) + "\n")

results = stored()
if not results:
    raise SystemExit(f"{args.results}: no results")
texts = {name: table(name, results) for name in TABLES}
texts["machine"] = machine(results)
for name, text in texts.items():
    print(f"\n{text}")
if args.write:
    page = Path(args.write)
    text = page.read_text()
    for name, new in texts.items():
        begin, end = f"<!-- begin peers:{name} -->\n", f"\n<!-- end peers:{name} -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            raise SystemExit(f"{page}: no markers {begin.strip()} … {end.strip()}")
        text = before + begin + new + end + after
    page.write_text(text)
