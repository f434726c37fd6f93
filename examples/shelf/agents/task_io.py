"""What every agent here shares: the task on stdin, JSON lines on stdout, one sentence on failure.

An agent is any program that does these three things; nothing of this module is required.
"""

import json
import pathlib
import sys

SOURCES = "shelf"
# The stdout that the bridge reads, also while sys.stdout is redirected.
LINES = sys.stdout


class Failure(Exception):
    """The task cannot be done; the text says why, and becomes the task's error."""


def read_task(stream=sys.stdin):
    """The task as a dictionary; raises Failure when stdin is not a JSON object."""
    try:
        task = json.load(stream)
    except json.JSONDecodeError as error:
        raise Failure(f"the task on stdin is not JSON: {error}") from None
    if not isinstance(task, dict):
        raise Failure("the task on stdin is not a JSON object")
    return task


def progress(part, message):
    """Reports how far the work is, from 0 to 1."""
    print(json.dumps({"progress": round(part, 3), "message": message}), file=LINES, flush=True)


def sources(task):
    """The Python files that the task names, or all of the package; never one outside the project."""
    root = pathlib.Path.cwd()
    found = []
    for name in task.get("files") or [SOURCES]:
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise Failure(f"{name} lies outside the project")
        if not path.exists():
            raise Failure(f"{name} does not exist")
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    if not found:
        raise Failure("the task names no Python file")
    return [path.relative_to(root) for path in dict.fromkeys(found)]


def write(path, lines):
    """Writes a report and gives its path back, for the result."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path.as_posix()


def table(head, rows):
    """Lines of a Markdown table."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return ["| " + " | ".join(line) + " |" for line in lines]


def run(work):
    """Runs one agent: work(task) gives its result. Exits 1 with the reason when it fails."""
    try:
        result = work(read_task())
    except Failure as failure:
        sys.exit(str(failure))
    print(json.dumps({"result": result}), file=LINES, flush=True)
