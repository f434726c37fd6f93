"""Agent for code review: finds defects in the syntax trees and writes reports/review.md.

A review of single files gets a report of its own, so that it does not replace the one of the package.
"""

import pathlib
from collections import Counter

import rules
import task_io

SEVERITIES = ["high", "medium", "low"]


def defects_of(path):
    """Defects of one file; raises Failure when it cannot be read as Python."""
    try:
        found = rules.review(path.read_text(encoding="utf-8"), str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise task_io.Failure(f"{path} is not Python: {error}") from None
    return [
        {"file": path.as_posix(), "line": line, "rule": rule.name, "severity": rule.severity, "advice": rule.advice}
        for line, rule in found
    ]


def report_path(task):
    """Where the report goes: named after the files, when the task names single files."""
    named = [pathlib.Path(name) for name in task.get("files") or []]
    stems = [path.stem for path in named if path.is_file()]
    return f"reports/{'-'.join(['review', *stems])}.md"


def report(path, defects, files):
    """Writes the report, the gravest first; gives its path."""
    lines = ["# Review", "", f"{len(defects)} defects in {len(files)} files."]
    for severity in SEVERITIES:
        chosen = [defect for defect in defects if defect["severity"] == severity]
        if not chosen:
            continue
        rows = [(f"{d['file']}:{d['line']}", d["rule"], code(d), d["advice"]) for d in chosen]
        lines += ["", f"## {severity}", "", *task_io.table(["place", "rule", "code", "advice"], rows)]
    return task_io.write(path, lines)


def code(defect):
    """The line that the defect stands on."""
    text = pathlib.Path(defect["file"]).read_text(encoding="utf-8")
    return f"`{text.splitlines()[defect['line'] - 1].strip()}`"


def work(task):
    """Reviews each file; the defects are the result, not a failure."""
    files = task_io.sources(task)
    defects = []
    for done, path in enumerate(files, 1):
        found = defects_of(path)
        defects += found
        task_io.progress(done / len(files), f"{path}: {len(found)} defects")
    counts = Counter(defect["severity"] for defect in defects)
    summary = f"{len(defects)} defects in {len(files)} files"
    by_severity = {severity: counts[severity] for severity in SEVERITIES}
    path = report(report_path(task), defects, files)
    return {"summary": summary, "by_severity": by_severity, "defects": defects, "files": [path]}


if __name__ == "__main__":
    task_io.run(work)
