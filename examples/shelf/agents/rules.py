"""The rules of the review, each a check of one syntax node. Knows no file and no report."""

import ast
import re
from dataclasses import dataclass

MONEY = re.compile(r"(^|_)(price|fee|fine|cost|amount|balance)s?(_|$)", re.IGNORECASE)
MUTABLE_CALLS = {"list", "dict", "set", "bytearray"}


@dataclass(frozen=True)
class Rule:
    """What is wrong, how bad it is, and what to do instead."""

    name: str
    severity: str
    advice: str
    check: object


def dotted(node):
    """`a.b.c` of a name or attribute, or an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else node.attr
    return ""


def is_call_of(node, *names):
    """Whether the node calls one of these names, as written or at the end of a path."""
    if not isinstance(node, ast.Call):
        return False
    called = dotted(node.func)
    return any(called == name or called.endswith("." + name) for name in names)


def mutable_default(node, _scope):
    """A default value that all calls share."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        return False
    values = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
    literal = (ast.List, ast.Dict, ast.Set)
    return any(isinstance(value, literal) or is_call_of(value, *MUTABLE_CALLS) for value in values)


def bare_except(node, _scope):
    """An `except:` that also takes KeyboardInterrupt and SystemExit."""
    return isinstance(node, ast.ExceptHandler) and node.type is None


def swallowed_error(node, _scope):
    """A handler for anything that does nothing."""
    if not isinstance(node, ast.ExceptHandler) or dotted(node.type) not in ("Exception", "BaseException"):
        return False
    return all(isinstance(step, (ast.Pass, ast.Continue)) for step in node.body)


def float_money(node, _scope):
    """Money in binary fractions: a float literal or annotation under a name of money."""
    if isinstance(node, ast.Assign):
        names, value, kind = node.targets, node.value, None
    elif isinstance(node, ast.AnnAssign):
        names, value, kind = [node.target], node.value, node.annotation
    elif isinstance(node, ast.arg):
        return bool(MONEY.search(node.arg)) and dotted(node.annotation) == "float"
    else:
        return False
    money = any(MONEY.search(dotted(name).rpartition(".")[2]) for name in names)
    literal = isinstance(value, ast.Constant) and isinstance(value.value, float)
    return money and (literal or dotted(kind) == "float")


def naive_time(node, _scope):
    """A date and time without a zone."""
    if is_call_of(node, "datetime.utcnow", "datetime.utcfromtimestamp"):
        return True
    zoned = isinstance(node, ast.Call) and any(word.arg == "tz" for word in node.keywords)
    if is_call_of(node, "datetime.now"):
        return not node.args and not zoned
    return is_call_of(node, "datetime.fromtimestamp") and len(node.args) < 2 and not zoned


def sql_from_strings(node, scope):
    """A statement put together from values, directly or through a local name."""
    if not is_call_of(node, "execute", "executemany", "executescript") or not node.args:
        return False
    statement = node.args[0]
    if isinstance(statement, ast.Name):
        statement = scope.get(statement.id)
    return is_built(statement)


def is_built(node):
    """Whether a text is put together at run time."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)):
        return not all(isinstance(side, ast.Constant) for side in (node.left, node.right))
    return is_call_of(node, "format")


def unclosed_file(node, scope):
    """A file that is opened outside a `with` statement and never closed by name."""
    return isinstance(node, ast.Call) and dotted(node.func) == "open" and id(node) not in scope["closed"]


def no_encoding(node, _scope):
    """A text file in the encoding of whichever machine reads it."""
    if not isinstance(node, ast.Call) or dotted(node.func) != "open":
        return False
    words = {word.arg: word.value for word in node.keywords}
    mode = node.args[1] if len(node.args) > 1 else words.get("mode")
    binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
    return not binary and "encoding" not in words and len(node.args) < 4


def assert_as_check(node, _scope):
    """A check of input that `python -O` removes."""
    return isinstance(node, ast.Assert)


def equals_none(node, _scope):
    """A comparison with None that a class can overrule."""
    if not isinstance(node, ast.Compare):
        return False
    pairs = zip(node.ops, node.comparators)
    return any(
        isinstance(sign, (ast.Eq, ast.NotEq)) and isinstance(side, ast.Constant) and side.value is None
        for sign, side in pairs
    )


RULES = [
    Rule("sql-from-strings", "high", "pass values as parameters, choose names from a fixed list", sql_from_strings),
    Rule("bare-except", "high", "name the exception that is expected here", bare_except),
    Rule("swallowed-error", "high", "name the exception, and count or log what was left out", swallowed_error),
    Rule("float-money", "high", "keep money as whole cents or as decimal.Decimal", float_money),
    Rule("mutable-default", "medium", "use None or a tuple, and make the value in the body", mutable_default),
    Rule("naive-time", "medium", "take datetime.now(timezone.utc)", naive_time),
    Rule("unclosed-file", "medium", "open the file in a with statement", unclosed_file),
    Rule("assert-as-check", "medium", "raise ValueError, which -O does not remove", assert_as_check),
    Rule("no-encoding", "low", "give encoding=\"utf-8\"", no_encoding),
    Rule("equals-none", "low", "compare with `is` or `is not`", equals_none),
]


def scope_of(function):
    """Local names with the last value given to them, and the open() calls that something closes."""
    scope, closed = {}, set()
    named = {}
    for node in ast.walk(function):
        if isinstance(node, (ast.With, ast.AsyncWith)):
            closed.update(id(call) for item in node.items for call in ast.walk(item.context_expr))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            scope[node.targets[0].id] = node.value
            named[node.targets[0].id] = id(node.value)
    for node in ast.walk(function):
        if is_call_of(node, "close") and isinstance(node.func, ast.Attribute):
            closed.add(named.get(dotted(node.func.value)))
    scope["closed"] = closed
    return scope


def review(source, name="<source>"):
    """(line, rule) for each defect of one file, by line. Raises SyntaxError."""
    tree = ast.parse(source, name)
    found = {}

    def visit(node, scope):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            scope = scope_of(node)
        for rule in RULES:
            if rule.check(node, scope):
                found[node.lineno, rule.name] = rule
        for child in ast.iter_child_nodes(node):
            visit(child, scope)

    visit(tree, scope_of(tree))
    return [(line, rule) for (line, _), rule in sorted(found.items(), key=lambda entry: entry[0])]
