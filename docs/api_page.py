"""The reference of the Python API as Markdown, from the signatures and docstrings of the public names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parent.parent

WIDTH = 100
"""Maximum length of a signature on one line."""


def api_page() -> str:
    """Return a section for each public name of `charlm`: first the functions, then the classes with their methods."""
    package = griffe.load("charlm", search_paths=[ROOT], docstring_parser="google", resolve_aliases=True)
    objects = [package[name].final_target for name in package.exports]
    functions = [_section(item, "##", f"charlm.{item.name}") for item in objects if item.is_function]
    return "\n".join([*functions, *(_class(item) for item in objects if item.is_class)])


def _class(item: griffe.Class) -> str:
    """Return the section of a class, its properties and its methods; those of an exception are internal."""
    parts = [f"## charlm.{item.name}\n\n", *_docstring(item)]
    if "Exception" not in map(str, item.bases):
        members = [member for member in item.members.values() if member.is_public and member.docstring]
        properties = [member for member in members if "property" in member.labels]
        if properties:
            parts += ["Properties:\n\n", *(f"- `{one.name}`: {_one_line(one.docstring.value)}\n" for one in properties)]
            parts.append("\n")
        methods = [one for one in members if one.is_function and not one.name.startswith("_")]
        parts += [_section(one, "###", f"{item.name}.{one.name}") for one in methods]
    return "".join(parts)


def _section(item: griffe.Function, level: str, name: str) -> str:
    return f"{level} {name}\n\n```python\n{_signature(item)}\n```\n\n{''.join(_docstring(item))}"


def _signature(item: griffe.Function) -> str:
    """Return a signature without `self`; a long one has one parameter per line."""
    signature = str(item.signature()).replace("(self, ", "(").replace("(self)", "()")
    if len(signature) <= WIDTH:
        return signature
    name, _, rest = signature.partition("(")
    parameters, _, result = rest.rpartition(") -> ")
    lines, depth = [""], 0
    for character in parameters:
        depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            lines.append("")
        else:
            lines[-1] += character
    return "\n".join([f"{name}(", *(f"    {line.strip()}," for line in lines), f") -> {result}"])


def _docstring(item: griffe.Object) -> Iterator[str]:
    """Yield the sections of a docstring as Markdown."""
    for section in item.docstring.parsed:
        match section.kind:
            case griffe.DocstringSectionKind.text:
                yield f"{section.value}\n\n"
            case griffe.DocstringSectionKind.admonition:
                yield f"{section.title}:\n\n```python\n{section.value.description}\n```\n\n"
            case griffe.DocstringSectionKind.returns:
                yield f"Returns: {' '.join(_one_line(value.description) for value in section.value)}\n\n"
            case kind:
                title = {"parameters": "Arguments"}.get(kind.value, kind.value.capitalize())
                yield f"{title}:\n\n{''.join(map(_entry, section.value))}\n"


def _entry(value: Any) -> str:  # noqa: ANN401 - griffe has a class for each kind of section
    """Return the line of a parameter, an attribute or an exception."""
    return f"- `{getattr(value, 'name', None) or value.annotation}`: {_one_line(value.description)}\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())
