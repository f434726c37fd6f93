"""Puts the figures of the peers and ours into one Markdown document.

Usage: table.py FILE. FILE has one JSON object a line, as `LOKI_BENCH_JSON` makes benchmarks append them.
"""

import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys


def read(path):
    """The newest report of each benchmark: its rows by name, and its notes."""
    reports = {}
    for line in pathlib.Path(path).read_text().splitlines():
        report = json.loads(line)
        rows = {row["row"]: row for row in report["rows"]}
        reports[report["benchmark"]] = (rows, report["notes"])
    return reports


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def line(cells):
    return "| " + " | ".join(cells) + " |"


def machine():
    commit = output("git", "rev-parse", "--short", "HEAD")
    disk = output("findmnt", "--noheadings", "--output", "FSTYPE", "--target", ".")
    day = datetime.date.today().isoformat()
    cores = os.cpu_count()
    return (f"Measured on {day} at commit {commit}: {processor()}, {cores} processors, Linux {platform.release()}, "
            f"{disk or 'an unknown file system'}. Everything ran on this one machine, one after the other; the load "
            "generators took their share of the same processors.")


def comparison(reports):
    peers, _ = reports["peers"]
    enqueue, _ = reports["enqueue"]
    lives, _ = reports["lifecycle"]
    single, batched = lives["64 producers, 1 consumer"], lives["64 producers, 1 consumer, frames of 16"]
    base = peers.get("Redis Streams, AOF always, one command a round trip", {})
    rows = [(name, row.get("enqueue/s, 1"), row.get("enqueue/s, 64") or row.get("enqueue/s, batches of 100"),
             row.get("lives/s, 64") or row.get("lives/s, batches of 100"), "`cargo bench --bench peers`")
            for name, row in peers.items()]
    rows.append(("floor: file, fdatasync, group commit, no store", enqueue["1 producers"]["floor/s"],
                 enqueue["64 producers"]["floor/s"], None, "`cargo bench --bench enqueue`"))
    rows.append(("**ours, in a process**", enqueue["1 producers"]["burst/s"], enqueue["64 producers"]["burst/s"],
                 None, "`cargo bench --bench enqueue`"))
    rows.append(("**ours, WebSocket, one message a frame**", lives["1 producer, 1 consumer"]["acknowledged/s"],
                 single["acknowledged/s"], single["lives/s"], "`cargo bench --bench lifecycle`"))
    rows.append(("**ours, WebSocket, frames of 16**", None, batched["acknowledged/s"], batched["lives/s"],
                 "`cargo bench --bench lifecycle`"))
    print(line(["system", "enqueue/s, 1 producer", "enqueue/s, 64", "lives/s, 64", "of Redis (lives)", "command"]))
    print(line(["---"] * 6))
    for name, one, many, whole, command in rows:
        wanted = base.get("lives/s, 64")
        ratio = f"{whole / wanted:.2f}" if whole and wanted else ""
        print(line([name, number(one), number(many), number(whole), ratio, command]))


def details(name, report):
    rows, notes = report
    columns = []
    for row in rows.values():
        columns += [column for column in row if column not in columns and column != "row"]
    print(f"\n## {name}\n\n`cargo bench --bench {name}`\n")
    print(line(["", *columns]))
    print(line(["---"] * (len(columns) + 1)))
    for title, row in rows.items():
        print(line([title, *(number(row.get(column)) for column in columns)]))
    for note in notes:
        print(f"\n{note}")


def main():
    reports = read(sys.argv[1])
    print("# Benchmarks\n")
    print("`benches/peers/run` writes this file. A life of a message is its durable enqueue, its hand-over to a "
          "consumer, and the durable acknowledgement of that.\n")
    print(machine() + "\n")
    comparison(reports)
    print("\nNATS JetStream confirms before it syncs (its default is every two minutes), so its figures are not "
          "those of a durable queue. SQLite was called from Python; its column of 64 has one producer with batches of "
          "100. Ours carry 512 bytes of payload in an envelope and write the audit log with each step.")
    for name, report in reports.items():
        details(name, report)


main()
