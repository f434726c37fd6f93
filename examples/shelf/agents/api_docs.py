"""Agent for documentation: an API reference from signatures and docstrings, in docs/api.md.

Sources are parsed, never imported: writing about a module does not run it.
"""

import ast

import task_io

REPORT = "docs/api.md"


def is_public(node):
    """Whether a definition belongs into the reference."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(node, kinds) and not node.name.startswith("_")


def signature(node):
    """A definition as a caller writes it, without `self`."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    given = ast.unparse(node.args)
    for first in ("self", "cls"):
        if given == first or given.startswith(first + ", "):
            given = given[len(first) :].removeprefix(", ")
    gives = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({given}){gives}"


def entry(node, depth, missing):
    """Lines about one definition and, for a class, its public methods."""
    text = ast.get_docstring(node)
    if text is None:
        missing.append(node.name)
    lines = ["", f"{'#' * depth} `{signature(node)}`", "", text or "Not documented."]
    if isinstance(node, ast.ClassDef):
        fields = [step for step in node.body if isinstance(step, ast.AnnAssign)]
        lines += [""] if fields else []
        lines += [f"- `{ast.unparse(step)}`" for step in fields]
        for method in filter(is_public, node.body):
            lines += entry(method, depth + 1, missing)
    return lines


def chapter(path, missing):
    """Lines about one module, and how many definitions they describe."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise task_io.Failure(f"{path} is not Python: {error}") from None
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    lines = ["", f"## {name}", "", ast.get_docstring(tree) or "Not documented."]
    public = [node for node in tree.body if is_public(node)]
    for node in public:
        lines += entry(node, 3, missing)
    return lines, len(public)


def work(task):
    """Writes the reference and names what has no docstring."""
    files = task_io.sources(task)
    lines, missing, total = ["# API reference"], [], 0
    for done, path in enumerate(files, 1):
        text, count = chapter(path, missing)
        lines += text
        total += count
        task_io.progress(done / len(files), f"{path}: {count} definitions")
    summary = f"{total} definitions of {len(files)} modules, {len(missing)} members without a docstring"
    return {"summary": summary, "undocumented": missing, "files": [task_io.write(REPORT, lines)]}


if __name__ == "__main__":
    task_io.run(work)
