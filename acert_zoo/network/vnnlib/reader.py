"""Reads VNN-LIB properties: version 1.0 (what every public benchmark uses) here, 2.0 through the `vnnlib` package.

Version 1.0 is SMT-LIB with real variables X_i (inputs) and Y_j (outputs), numbered in C order; its package reads 2.0
only. Numbers are taken exactly as written.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from acert_zoo._files import is_plain_file
from acert_zoo.errors import InvalidInputError, MissingDependencyError
from acert_zoo.network.properties import Property
from acert_zoo.network.vnnlib.formulas import And, Bound, Expression, Formula, Or, cases, compare

MAX_BYTES = 256 * 2**20  # of text, after unpacking
MAX_DEPTH = 50  # of nested brackets
_NUMBER = re.compile(r"[+-]?(\d{1,60}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,3})?", re.ASCII)
_VARIABLE = re.compile(r"([XY])_(\d{1,9})", re.ASCII)
_TOKEN = re.compile(r"[()]|[^\s()]+")
_COMPARISONS = ("<=", ">=", "<", ">", "=", "==")


def read_property(path: str | os.PathLike[str]) -> Property:
    """The property of a .vnnlib file, or of one packed by gzip (.vnnlib.gz).

    Raises:
        InvalidInputError: no such file, not VNN-LIB, or a property beyond boxes of inputs and linear inequalities of
            outputs; the message says what was found.
        MissingDependencyError: version 2.0 without the vnnlib package.
    """
    file = Path(path)
    if not is_plain_file(file):
        raise InvalidInputError(f"{str(path)!r} is not a file")
    try:
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InvalidInputError(f"it is larger than {MAX_BYTES >> 20} MiB")
        return parse_property(content.decode("utf-8-sig"))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{str(path)!r} cannot be read: {error}") from error
    except InvalidInputError as error:
        raise InvalidInputError(f"{str(path)!r}: {error}") from None


def parse_property(text: str) -> Property:
    """The property of a VNN-LIB text; errors as `read_property`.

    >>> variables = "(declare-const X_0 Real)(declare-const Y_0 Real)"
    >>> parse_property(variables + "(assert (<= X_0 1))(assert (>= X_0 0.5))(assert (>= Y_0 2))").cases[0].lower
    (Fraction(1, 2),)
    """
    text = re.sub(r";[^\n]*", "", text)
    if re.match(r"\s*\(\s*vnnlib-version", text):
        return _version2(text)
    sizes = {"X": 0, "Y": 0}
    declared: set[str] = set()
    assertions = []
    reader = _Version1(declared)
    for command in _expressions(text):
        match command:
            case ["declare-const" | "declare-fun", str(name), *_, "Real"] if _VARIABLE.fullmatch(name):
                declared.add(name)
                sizes[name[0]] = max(sizes[name[0]], int(name[2:]) + 1)
            case ["assert", body]:
                assertions.append(reader.formula(body))
            case ["set-logic" | "set-info" | "set-option" | "check-sat" | "exit" | "get-model", *_]:
                pass
            case _:
                raise InvalidInputError(f"not a VNN-LIB 1.0 command: {_shown(command)}")
    if len(declared) != sizes["X"] + sizes["Y"] or not all(sizes.values()):
        raise InvalidInputError(
            f"variables must be X_0 ... X_n and Y_0 ... Y_m without gaps; {len(declared)} are declared, up to "
            f"X_{sizes['X'] - 1} and Y_{sizes['Y'] - 1}"
        )
    return Property(cases(assertions, sizes["X"]), sizes["X"], sizes["Y"])


def _expressions(text: str) -> Iterator[Any]:
    """The top-level s-expressions, one at a time: nested lists of words."""
    stack: list[list[Any]] = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == "(":
            stack.append([])
            if len(stack) > MAX_DEPTH:
                raise InvalidInputError(f"brackets nested more than {MAX_DEPTH} deep")
        elif not stack:
            raise InvalidInputError(f"{token[:40]!r} stands outside of brackets; not VNN-LIB")
        elif token == ")":
            done = stack.pop()
            if stack:
                stack[-1].append(done)
            else:
                yield done
        else:
            stack[-1].append(token)
    if stack:
        raise InvalidInputError("a bracket is not closed")


def _shown(expression: Any) -> str:
    text = f"({' '.join(map(_shown, expression))})" if isinstance(expression, list) else str(expression)
    return text if len(text) < 80 else text[:77] + "..."


class _Version1:
    """Formulas and expressions of version 1.0; numbers are parsed once (images repeat them)."""

    def __init__(self, declared: set[str]) -> None:
        self.declared = declared
        self.leaves: dict[str, tuple[str, int] | Fraction] = {}

    def formula(self, body: Any) -> Formula:
        if len(body) == 3 and body[0] in ("<=", ">=") and type(body[1]) is type(body[2]) is str:
            variable, number = self._leaf(body[1]), self._leaf(body[2])
            if isinstance(variable, tuple) and isinstance(number, Fraction):  # almost all of a file, so made quick
                return Bound(*variable, number, body[0] == "<=")
        match body:
            case ["and", *parts] if parts:
                return And(tuple(self.formula(p) for p in parts))
            case ["or", *parts] if parts:
                return Or(tuple(self.formula(p) for p in parts))
            case [str(operator), left, right] if operator in _COMPARISONS:
                return compare(operator, self.expression(left), self.expression(right))
        raise InvalidInputError(f"not a formula that is supported (and, or, {' '.join(_COMPARISONS)}): {_shown(body)}")

    def expression(self, body: Any) -> Expression:
        match body:
            case str():
                leaf = self._leaf(body)
                return Expression({leaf: Fraction(1)}) if isinstance(leaf, tuple) else Expression({}, leaf)
            case ["-", argument]:
                return Expression({}).plus(self.expression(argument), Fraction(-1))
            case ["+" | "-" as sign, first, *rest]:
                total = self.expression(first)
                for argument in rest:
                    total = total.plus(self.expression(argument), Fraction(1 if sign == "+" else -1))
                return total
            case ["*", first, *rest]:
                total = self.expression(first)
                for argument in rest:
                    total = total.times(self.expression(argument))
                return total
            case ["/", first, second]:
                divisor = self.expression(second)
                if not divisor.terms and divisor.constant:
                    return Expression({}).plus(self.expression(first), 1 / divisor.constant)
        raise InvalidInputError(f"not a linear expression: {_shown(body)}")

    def _leaf(self, word: str) -> tuple[str, int] | Fraction:
        """A variable (kind, index), or a number."""
        leaf = self.leaves.get(word)
        if leaf is None:
            variable = _VARIABLE.fullmatch(word)
            if variable:
                if word not in self.declared:
                    raise InvalidInputError(f"variable {word} is not declared")
                leaf = (variable[1], int(variable[2]))
            elif _NUMBER.fullmatch(word):
                leaf = Fraction(word)
            else:
                raise InvalidInputError(f"{word[:40]!r} is neither a number nor a variable X_i or Y_j")
            self.leaves[word] = leaf
        return leaf


# --- version 2.0 --------------------------------------------------------------------------------------------------


def _version2(text: str) -> Property:
    try:
        import vnnlib
    except ImportError as error:
        raise MissingDependencyError(
            "VNN-LIB 2.0 needs the vnnlib package; install it with: pip install vnnlib"
        ) from error
    try:
        query: Any = vnnlib.parse_query_string(text)
    except vnnlib.VNNLibException as error:
        raise InvalidInputError(f"not VNN-LIB 2.0: {str(error).splitlines()[0]}") from error
    if len(query.networks) != 1 or len(query.networks[0].inputs) != 1 or len(query.networks[0].outputs) != 1:
        raise InvalidInputError("a property of one network with one input and one output is needed")
    network = query.networks[0]
    shapes = {v.name: tuple(v.shape) for v in (*network.inputs, *network.outputs)}
    reader = _Version2(network.inputs[0].name, shapes)
    assertions = [reader.formula(a.expr) for a in query.assertions]
    inputs, outputs = shapes[network.inputs[0].name], shapes[network.outputs[0].name]
    size = _size(inputs)
    return Property(cases(assertions, size), size, _size(outputs), inputs, outputs)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for d in shape:
        size *= d
    if not 0 < size <= 10**9:
        raise InvalidInputError(f"a variable of shape {list(shape)}")
    return size


class _Version2:
    """Formulas and expressions of the vnnlib package's syntax tree; literals are taken as written."""

    OPERATORS = {"GreaterEqual": ">=", "LessEqual": "<=", "GreaterThan": ">", "LessThan": "<", "Equal": "=="}

    def __init__(self, input_name: str, shapes: dict[str, tuple[int, ...]]) -> None:
        self.input_name, self.shapes = input_name, shapes

    def formula(self, node: Any) -> Formula:
        kind = type(node).__name__
        if kind in ("And", "Or") and node.args:
            parts = tuple(self.formula(a) for a in node.args)
            return And(parts) if kind == "And" else Or(parts)
        if kind in self.OPERATORS:
            return compare(self.OPERATORS[kind], self.expression(node.lhs), self.expression(node.rhs))
        raise InvalidInputError(f"a formula of kind {kind}: {str(node)[:80]}")

    def expression(self, node: Any) -> Expression:
        kind = type(node).__name__
        if kind == "Var":
            return Expression({self._variable(node): Fraction(1)})
        if kind == "Negate":
            return Expression({}).plus(self.expression(node.expr), Fraction(-1))
        if kind in ("Plus", "Multiply"):
            total, *rest = (self.expression(a) for a in node.args)
            for other in rest:
                total = total.plus(other) if kind == "Plus" else total.times(other)
            return total
        if kind == "Minus":
            total = self.expression(node.head)
            for argument in node.rest:
                total = total.plus(self.expression(argument), Fraction(-1))
            return total
        lexeme = getattr(node, "lexeme", "")
        if not _NUMBER.fullmatch(lexeme):
            raise InvalidInputError(f"an expression of kind {kind}: {str(node)[:80]}")
        return Expression({}, Fraction(lexeme))

    def _variable(self, node: Any) -> tuple[str, int]:
        shape, index = self.shapes.get(node.name), 0
        if shape is None or len(node.indices) != len(shape):
            raise InvalidInputError(f"variable {node.name} with {len(node.indices)} indices")
        for size, position in zip(shape, node.indices, strict=True):
            if not 0 <= position < size:
                raise InvalidInputError(f"{node.name}{list(node.indices)} lies outside of the shape {list(shape)}")
            index = index * size + position
        return ("X" if node.name == self.input_name else "Y", index)
