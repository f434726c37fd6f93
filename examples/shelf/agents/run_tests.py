"""Agent for testing: runs the unittest suite and writes reports/tests.md. A failing test fails it."""

import contextlib
import pathlib
import sys
import time
import unittest

import task_io

REPORT = "reports/tests.md"


class Recorder(unittest.TestResult):
    """Reports each test as it ends, and remembers how it went."""

    def __init__(self, total):
        super().__init__()
        self.total = total
        self.rows = []
        self.outcome = "passed"
        self.started = 0.0

    def startTest(self, test):
        super().startTest(test)
        self.outcome = "passed"
        self.started = time.perf_counter()

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.outcome = "failed"

    def addError(self, test, err):
        super().addError(test, err)
        self.outcome = "error"

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.failures.append((test, "passed, and was expected to fail"))
        self.outcome = "failed"

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.outcome = f"skipped: {reason}"

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.outcome = "failed"

    def stopTest(self, test):
        super().stopTest(test)
        milliseconds = (time.perf_counter() - self.started) * 1000
        self.rows.append((test.id(), self.outcome, f"{milliseconds:.1f}"))
        part = len(self.rows) / self.total
        task_io.progress(min(part, 1), f"{test.id()}: {self.outcome}")


def suite(names):
    """The tests of the named files, or every test of the project."""
    loader = unittest.TestLoader()
    if not names:
        return loader.discover("tests", top_level_dir=".")
    modules = [pathlib.Path(name).with_suffix("").as_posix().replace("/", ".") for name in names]
    return loader.loadTestsFromNames(modules)


def report(recorder):
    """Writes the report; gives its path."""
    lines = ["# Tests", "", f"{len(recorder.rows)} run, {len(problems(recorder))} not passed.", ""]
    lines += task_io.table(["test", "outcome", "ms"], recorder.rows)
    for name, trace in problems(recorder):
        lines += ["", f"## {name}", "", "```", trace.rstrip(), "```"]
    return task_io.write(REPORT, lines)


def problems(recorder):
    """Name and trace of each failure and error."""
    return [(test.id(), trace) for test, trace in recorder.failures + recorder.errors]


def work(task):
    """Runs the suite and gives the counts; raises Failure when a test did not pass."""
    sys.path.insert(0, str(pathlib.Path.cwd()))
    names = [name for name in task.get("files") or [] if pathlib.Path(name).name.startswith("test_")]
    tests = suite(names)
    total = tests.countTestCases()
    if total == 0:
        raise task_io.Failure("no test was found")
    recorder = Recorder(total)
    # What a test prints must not stand among the JSON lines.
    with contextlib.redirect_stdout(sys.stderr):
        tests.run(recorder)
    path = report(recorder)
    failed = [name for name, _ in problems(recorder)]
    if failed:
        raise task_io.Failure(f"{len(failed)} of {total} tests failed, see {path}: {', '.join(failed)}")
    skipped = len(recorder.skipped)
    summary = f"{total - skipped} tests passed, {skipped} skipped"
    return {"summary": summary, "tests": total, "skipped": skipped, "files": [path]}


if __name__ == "__main__":
    task_io.run(work)
