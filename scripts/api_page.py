"""Writes docs/api.md, the public names with their signatures and docstrings: `python scripts/api_page.py [--check]`."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

import acert_zoo

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
HEAD = """# API

Everything that `import acert_zoo` offers, generated from the docstrings by `python scripts/api_page.py`. Radii are in
pixel units of [0, 1] everywhere.
"""


def page() -> str:
    """The whole page: functions first, then classes, then errors and warnings."""
    names = sorted(name for name in acert_zoo.__all__ if not name.startswith("_"))
    values = {name: getattr(acert_zoo, name) for name in names}
    errors = [n for n, v in values.items() if isinstance(v, type) and issubclass(v, Exception)]
    classes = [n for n, v in values.items() if isinstance(v, type) and n not in errors]
    functions = [n for n in names if n not in errors and n not in classes]
    parts = [HEAD]
    for title, chosen in (("Functions", functions), ("Classes", classes), ("Errors and warnings", errors)):
        parts.append(f"## {title}\n")
        parts += [entry(name, values[name]) for name in chosen]
    return "\n".join(parts)


def entry(name: str, value: object) -> str:
    """One name: its signature, its docstring, and the public methods that its class defines."""
    lines = [f"### `{name}`\n"]
    is_error = isinstance(value, type) and issubclass(value, Exception)
    if not is_error:
        lines.append(f"```python\n{name}{signature(value)}\n```\n")
    lines.append(block(inspect.getdoc(value) or ""))
    if isinstance(value, type) and not is_error:
        for method, member in sorted(vars(value).items()):
            if method.startswith("_") or not (
                inspect.isfunction(member) or isinstance(member, (property, classmethod))
            ):
                continue
            text = (inspect.getdoc(member) or "").split("\n\n")[0].replace("\n", " ")
            lines.append(f"- `{method}`: {text}")
        lines.append("")
    return "\n".join(lines)


def signature(value: object) -> str:
    """One parameter a line, annotations as they stand in the source."""
    try:
        parsed = inspect.signature(value)  # type: ignore[arg-type]
    except ValueError:
        return "(...)"
    lines: list[str] = []
    for parameter in parsed.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*," not in lines:
            lines.append("*,")
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        annotation = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        lines.append(f"{prefix}{parameter.name}{annotation}{default},")
    returns = "" if parsed.return_annotation is parsed.empty else f" -> {parsed.return_annotation}"
    return ("(\n    " + "\n    ".join(lines) + "\n)" if lines else "()") + returns


def block(doc: str) -> str:
    return f"```text\n{doc}\n```\n"


@click.command()
@click.option("--check", is_flag=True, help="Exits with 1 where docs/api.md is not up to date; writes nothing.")
def main(check: bool) -> None:
    """Writes docs/api.md from the docstrings of the public names."""
    text = page()
    if check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            raise click.ClickException("docs/api.md is out of date: python scripts/api_page.py")
        return
    PAGE.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
