"""Agent for releases: writes docs/changelog.md from the history of the project.

The history is `git log` when the project folder is a repository of its own. A copy without one, or a
folder inside another project's repository, has its history in history.log, in the same format.
"""

import pathlib
import re
import subprocess
from dataclasses import dataclass, field

import task_io

REPORT = "docs/changelog.md"
RECORD = "history.log"
LOG = ["git", "log", "--no-merges", "--decorate=short", "--date=iso-strict"]
SECTIONS = {"Add": "Added", "Fix": "Fixed", "Remove": "Removed"}


@dataclass
class Commit:
    """What a changelog needs of a commit."""

    hash: str
    tag: str = ""
    date: str = ""
    message: list = field(default_factory=list)


def history():
    """The log, newest first, and where it is from."""
    if own_repository():
        answer = subprocess.run(LOG, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return answer.stdout, "git log"
    try:
        return pathlib.Path(RECORD).read_text(encoding="utf-8"), RECORD
    except OSError as error:
        raise task_io.Failure(f"no history: not a repository, and {RECORD}: {error.strerror}") from None


def own_repository():
    """Whether the project folder is the root of a git repository."""
    return pathlib.Path(".git").exists()


def parse(text):
    """Commits of a log in git's medium format."""
    commits = []
    for line in text.splitlines():
        if start := re.match(r"commit ([0-9a-f]{7,64})(?: \((.*)\))?$", line):
            tag = re.search(r"tag: ([^,)]+)", start[2] or "")
            commits.append(Commit(start[1][:7], tag[1] if tag else ""))
        elif commits and line.startswith("Date:"):
            commits[-1].date = line.removeprefix("Date:").strip()[:10]
        elif commits and line.startswith("    "):
            commits[-1].message.append(line[4:])
    return commits


def releases(commits):
    """(title, commits) of each release, newest first; what no tag holds yet is unreleased."""
    groups = [("Unreleased", [])]
    for commit in commits:
        if commit.tag:
            groups.append((f"{commit.tag.removeprefix('v')} - {commit.date}", []))
        groups[-1][1].append(commit)
    return [(title, members) for title, members in groups if members]


def entries(members):
    """Lines of one release, sorted into sections by the first word of each subject."""
    sections = {title: [] for title in ("Added", "Changed", "Fixed", "Removed")}
    for commit in members:
        subject = commit.message[0] if commit.message else "(no message)"
        title = SECTIONS.get(subject.split(" ")[0], "Changed")
        sections[title].append(f"- {subject} ({commit.hash})")
    lines = []
    for title, found in sections.items():
        lines += ["", f"### {title}", "", *found] if found else []
    return lines


def work(_task):
    """Writes the changelog and says what it was made from."""
    text, source = history()
    commits = parse(text)
    if not commits:
        raise task_io.Failure(f"no commit in {source}")
    task_io.progress(0.5, f"{len(commits)} commits from {source}")
    groups = releases(commits)
    lines = ["# Changelog"]
    for title, members in groups:
        lines += ["", f"## {title}", *entries(members)]
    path = task_io.write(REPORT, lines)
    task_io.progress(1, f"{len(groups)} sections written")
    summary = f"{len(commits)} commits in {len(groups)} sections, from {source}"
    return {"summary": summary, "source": source, "commits": len(commits), "files": [path]}


if __name__ == "__main__":
    task_io.run(work)
