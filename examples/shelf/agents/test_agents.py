"""The agents, run as the bridge runs them: in a copy of the project, the task on stdin.

python3 -m unittest discover -s agents -t agents
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import rules

PROJECT = pathlib.Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns("reports", "docs", "__pycache__", "openclaw")

DEFECTS = {
    ("shelf/catalogue.py", "mutable-default"): 1,
    ("shelf/fees.py", "assert-as-check"): 1,
    ("shelf/fees.py", "float-money"): 5,
    ("shelf/importer.py", "no-encoding"): 1,
    ("shelf/importer.py", "swallowed-error"): 1,
    ("shelf/importer.py", "unclosed-file"): 2,
    ("shelf/loans.py", "bare-except"): 1,
    ("shelf/loans.py", "naive-time"): 2,
    ("shelf/report.py", "equals-none"): 1,
    ("shelf/store.py", "sql-from-strings"): 2,
}

# For each rule: code that it names, and code next to it that is right.
CASES = {
    "mutable-default": ("def f(a={}): return a", "def f(a=()): return a"),
    "bare-except": ("try: f()\nexcept: raise", "try: f()\nexcept OSError: raise"),
    "swallowed-error": (
        "try: f()\nexcept Exception: pass",
        "try: f()\nexcept Exception as error: log(error)",
    ),
    "float-money": ("price = 1.5", "price_cents = 150\npriceless = 1.5"),
    "naive-time": ("datetime.now()", "datetime.now(timezone.utc); datetime.now(tz=zone)"),
    "sql-from-strings": (
        "def f(n):\n q = f'SELECT {n}'\n db.execute(q)",
        "def f(n):\n q = 'SELECT ?'\n db.execute(q, (n,))",
    ),
    "unclosed-file": (
        "f = open('a', encoding='utf-8')\nf.read()",
        "f = open('a', encoding='utf-8')\nf.close()\nwith open('b', 'rb') as g: g.read()",
    ),
    "assert-as-check": ("assert a", "if not a: raise ValueError"),
    "no-encoding": ("with open('a') as f: pass", "with open('a', 'rb') as f: pass"),
    "equals-none": ("a == None", "a is None; a == 0"),
}


class AgentTest(unittest.TestCase):
    """A copy of the project for each test."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.project = pathlib.Path(folder.name, "shelf")
        shutil.copytree(PROJECT, self.project, ignore=LEFT_OUT)

    def run_agent(self, name, stdin="{}"):
        """Exit code, JSON lines and stderr of one agent."""
        done = subprocess.run(
            [sys.executable, f"agents/{name}.py"],
            input=stdin, cwd=self.project, capture_output=True, text=True, check=False, timeout=60,
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        )
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    def result(self, name, **task):
        """The result of an agent that must succeed, after the progress lines it must have printed."""
        task = {"task_id": "shelf-1", "task_type": "any", "description": "", "files": []} | task
        code, lines, errors = self.run_agent(name, json.dumps(task))
        self.assertEqual((code, errors), (0, ""))
        parts = [line["progress"] for line in lines[:-1]]
        self.assertEqual(parts, sorted(parts))
        self.assertEqual(parts[-1], 1)
        self.assertTrue(all(line["message"] for line in lines[:-1]))
        result = lines[-1]["result"]
        for path in result["files"]:
            self.assertTrue((self.project / path).read_text(encoding="utf-8").startswith("# "))
        return result

    def git(self, *words):
        """Runs git in the copy, as nobody in particular."""
        identity = ["-c", "user.name=Test", "-c", "user.email=test@library.example"]
        subprocess.run(["git", *identity, *words], cwd=self.project, check=True, capture_output=True)

    def test_tests_are_run_and_counted(self):
        result = self.result("run_tests")
        self.assertEqual((result["tests"], result["skipped"]), (21, 0))
        self.assertIn("test_fees_add_up", (self.project / "reports/tests.md").read_text())

    def test_a_failing_test_fails_the_agent(self):
        bad = "import unittest\nclass T(unittest.TestCase):\n def test_no(self): print('x'); self.fail()\n"
        (self.project / "tests/test_bad.py").write_text(bad)
        code, lines, errors = self.run_agent("run_tests")
        self.assertEqual(code, 1)
        self.assertIn("1 of 22 tests failed", errors)
        self.assertIn("tests.test_bad.T.test_no", errors)
        self.assertTrue(all("result" not in line for line in lines))

    def test_the_review_finds_what_is_wrong(self):
        result = self.result("review_code")
        found = {}
        for defect in result["defects"]:
            place = (defect["file"], defect["rule"])
            found[place] = found.get(place, 0) + 1
        self.assertEqual(found, DEFECTS)
        self.assertEqual(sum(result["by_severity"].values()), sum(DEFECTS.values()))

    def test_a_review_of_single_files_leaves_the_whole_one(self):
        self.assertEqual(self.result("review_code", files=["shelf"])["files"], ["reports/review.md"])
        result = self.result("review_code", files=["shelf/fees.py", "shelf/loans.py"])
        self.assertEqual(result["files"], ["reports/review-fees-loans.md"])
        self.assertEqual({d["file"] for d in result["defects"]}, {"shelf/fees.py", "shelf/loans.py"})

    def test_the_reference_has_every_public_name(self):
        result = self.result("api_docs")
        text = (self.project / "docs/api.md").read_text(encoding="utf-8")
        self.assertIn("#### `search(words, fields=['title', 'author'])`", text)
        self.assertNotIn("`_book(", text)
        self.assertEqual(result["undocumented"], [])

    def test_what_has_no_docstring_is_named(self):
        (self.project / "shelf/new.py").write_text('"""New."""\ndef bare(): return 1\n')
        self.assertEqual(self.result("api_docs")["undocumented"], ["bare"])

    def test_metrics_name_the_long_branches(self):
        self.assertEqual(self.result("metrics")["above_limit"], ["shelf/report.py:13 reminder"])

    def test_the_changelog_comes_from_the_shipped_history(self):
        result = self.result("changelog")
        self.assertEqual((result["source"], result["commits"]), ("history.log", 7))
        text = (self.project / "docs/changelog.md").read_text(encoding="utf-8")
        self.assertIn("## 0.3.0 - 2026-02-20\n\n### Added\n\n- Add late fees", text)

    @unittest.skipUnless(shutil.which("git"), "git is not installed")
    def test_the_changelog_of_a_repository_comes_from_its_log(self):
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("commit", "--quiet", "-m", "Fix the opening hours")
        result = self.result("changelog")
        self.assertEqual((result["source"], result["commits"]), ("git log", 1))
        self.assertIn("### Fixed\n\n- Fix the opening hours", (self.project / "docs/changelog.md").read_text())

    def test_failures_are_one_sentence(self):
        (self.project / "shelf/broken.py").write_text("def (:\n")
        (self.project / "history.log").unlink()
        cases = [
            ("review_code", "not json", "is not JSON"),
            ("review_code", "[]", "is not a JSON object"),
            ("review_code", '{"files": ["../other"]}', "outside the project"),
            ("api_docs", '{"files": ["shelf/none.py"]}', "does not exist"),
            ("metrics", "{}", "shelf/broken.py is not Python"),
            ("changelog", "{}", "no history"),
        ]
        for name, stdin, reason in cases:
            with self.subTest(agent=name, reason=reason):
                code, lines, errors = self.run_agent(name, stdin)
                self.assertEqual(code, 1)
                self.assertIn(reason, errors)
                self.assertEqual(len(errors.splitlines()), 1)
                self.assertTrue(all("result" not in line for line in lines))


class RulesTest(unittest.TestCase):
    def test_each_rule_tells_wrong_from_right(self):
        self.assertEqual(set(CASES), {rule.name for rule in rules.RULES})
        for name, (wrong, right) in CASES.items():
            with self.subTest(rule=name):
                self.assertEqual([rule.name for _, rule in rules.review(wrong)], [name])
                self.assertEqual(rules.review(right), [])


if __name__ == "__main__":
    unittest.main()
