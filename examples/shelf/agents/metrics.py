"""Agent for analysis: size and complexity of each module and function, in reports/metrics.md."""

import ast

import task_io

REPORT = "reports/metrics.md"
COMPLEXITY_MAX = 6
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def complexity(function):
    """McCabe's number: one, and one more for each branch and each further condition."""
    total = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            total += 1
        elif isinstance(node, ast.BoolOp):
            total += len(node.values) - 1
    return total


def code_lines(text):
    """Lines that are neither empty nor only a comment."""
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))


def measure(path):
    """The row of a module, and a row for each of its functions."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise task_io.Failure(f"{path} is not Python: {error}") from None
    functions = [
        (f"{path}:{node.lineno}", node.name, node.end_lineno - node.lineno + 1, complexity(node))
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS)
    ]
    highest = max((row[3] for row in functions), default=0)
    return (path.as_posix(), code_lines(text), len(functions), highest), functions


def work(task):
    """Writes both tables, and names the functions above the limit."""
    files = task_io.sources(task)
    modules, functions = [], []
    for done, path in enumerate(files, 1):
        module, found = measure(path)
        modules.append(module)
        functions += found
        task_io.progress(done / len(files), f"{path}: {module[1]} lines, {module[2]} functions")
    functions.sort(key=lambda row: (-row[3], -row[2], row[0]))
    above = [f"{place} {name}" for place, name, _, number in functions if number > COMPLEXITY_MAX]
    lines = ["# Size and complexity", "", f"{len(above)} functions are above {COMPLEXITY_MAX}.", ""]
    lines += task_io.table(["module", "lines of code", "functions", "highest complexity"], modules)
    lines += ["", *task_io.table(["place", "function", "lines", "complexity"], functions)]
    total = sum(module[1] for module in modules)
    summary = f"{total} lines of code, {len(functions)} functions, {len(above)} too complex"
    return {"summary": summary, "above_limit": above, "files": [task_io.write(REPORT, lines)]}


if __name__ == "__main__":
    task_io.run(work)
