"""Writes docs/reference/ from what the program itself declares: `make docs`.

A test compares, so that no page can go stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import typer.main
from pydantic import BaseModel

from kirana.catalog.objects import KINDS
from kirana.cli.app import app
from kirana.edge.openapi import openapi_document
from kirana.edge.routes import ROUTES
from kirana.flow.generators import GENERATORS
from kirana.flow.nodes import OPS

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by `make docs` from {source}: change that. -->\n\n"


def http_page() -> str:
    document = orjson.loads(openapi_document(ROUTES))
    lines = [
        "# The HTTP contract",
        "",
        "As JSON Schema: `GET /openapi.json`. A 4xx or 5xx has the body",
        '`{"error": {"code", "message", "field"}}`; [operations](../operations.md) has the codes.',
        "Routes that say so also take and give `application/x-protobuf`, by `Content-Type` and",
        "`Accept`: `proto/kirana/v1/messages.proto`.",
    ]
    schemas = document["components"]["schemas"]
    named: dict[str, None] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation["responses"]["200"]["content"]
            binary = " Also as Proto3." if "application/x-protobuf" in content else ""
            lines += ["", f"## {method.upper()} {path}", "", f"{operation['summary']}.{binary}"]
            query = [
                (
                    f"`{each['name']}`",
                    _type(each["schema"]),
                    _code(each["schema"].get("default"), "default" in each["schema"]),
                    each["description"],
                )
                for each in operation["parameters"]
                if each["in"] == "query"
            ]
            if query:
                columns = ("parameter", "type", "default", "what it is")
                lines += ["", "Query:", "", *_table(columns, query)]
            if "requestBody" in operation:
                reference = operation["requestBody"]["content"]["application/json"]["schema"]
                lines += ["", "Sent:", "", *_properties(schemas, reference, named)]
            reference = content["application/json"]["schema"]
            lines += ["", "Answered:", "", *_properties(schemas, reference, named)]
    lines += ["", "## Parts of messages"]
    done: set[str] = set()
    while set(named) - done:
        for name in [each for each in named if each not in done]:
            done.add(name)
            reference = {"$ref": f"#/components/schemas/{name}"}
            lines += ["", f"### {name}", "", *_properties(schemas, reference, named)]
    return _page("kirana/edge", lines)


def _properties(
    schemas: Mapping[str, Any], reference: Mapping[str, Any], named: dict[str, None]
) -> list[str]:
    schema = schemas[reference["$ref"].rpartition("/")[2]]
    required = schema.get("required", [])
    rows = []
    for name, each in schema["properties"].items():
        default = "" if name in required else _code(each.get("default"), "default" in each)
        needed = "yes" if name in required else ""
        rows.append((f"`{name}`", _type(each, named), needed, default))
    return _table(("field", "type", "always", "default"), rows)


def _type(schema: Mapping[str, Any], named: dict[str, None] | None = None) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if named is not None:
            named[name] = None
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(_type(each, named) for each in options))
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}), named)}{_amount(schema)}"
    if kind == "object" and schema.get("additionalProperties"):
        inner = schema["additionalProperties"]
        return f"mapping to {_type(inner if isinstance(inner, dict) else {}, named)}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{kind} from {low} to {high}"
    if low is not None:
        return f"{kind}, at least {low}"
    return f"{kind}, at most {high}" if high is not None else str(kind)


def _amount(schema: Mapping[str, Any]) -> str:
    """Say how long a list may be."""
    least, most = schema.get("minItems"), schema.get("maxItems")
    if most is not None:
        return f", {least or 0} to {most} of them"
    return f", at least {least}" if least else ""


def catalog_page() -> str:
    lines = [
        "# Catalog reference",
        "",
        "Every field of every kind, as `kirana check` takes them; [the catalog](../catalog.md)",
        "explains them.",
    ]
    inner: dict[str, type[BaseModel]] = {}
    for name, model in KINDS.items():
        lines += ["", f"## {name}", "", _doc(model), "", *_fields(model, inner)]
    for name, part in inner.items():
        lines += ["", f"## {name}", "", _doc(part), "", *_fields(part, {})]
    lines += ["", "## Ops of nodes"]
    for name, kind in OPS.items():
        lines += ["", f"### {name}", "", *_parameters(kind)]
    lines += ["", "## Generators"]
    for name, generator in GENERATORS.items():
        lines += ["", f"### {name}", "", *_parameters(generator)]
    return _page("kirana/catalog/objects.py and kirana/flow", lines)


def _parameters(kind: object) -> list[str]:
    module = sys.modules[str(getattr(kind, "__module__", ""))]
    model = getattr(module, "Parameters", None)
    fields = ["It takes no parameters."] if model is None else _fields(model, {})
    return [_doc(kind), "", *fields]


def _fields(model: type[BaseModel], inner: dict[str, type[BaseModel]]) -> list[str]:
    schema = model.model_json_schema(by_alias=True)
    for field in model.model_fields.values():
        for each in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            if isinstance(each, type) and issubclass(each, BaseModel):
                inner[each.__name__] = each
    rows = []
    for name, each in schema["properties"].items():
        needed = "yes" if name in schema.get("required", []) else ""
        default = _code(each.get("default"), "default" in each and each["default"] is not None)
        rows.append((f"`{name}`", _type(each), needed, default, each.get("description", "")))
    return _table(("field", "type", "needed", "default", ""), rows)


def cli_page() -> str:
    lines = [
        "# Commands",
        "",
        "`kirana --install-completion` teaches the shell to complete commands, options and names",
        "that are live. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 nothing answered",
        "(in time), 130 after Ctrl-C. Results go to stdout, all else to stderr.",
    ]
    command = typer.main.get_command(app)
    lines += _commands("kirana", command)
    return _page("the commands' own help", lines)


def _commands(path: str, group: Any) -> Iterable[str]:
    for name, command in sorted(group.commands.items()):
        called = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from _commands(called, command)
            continue
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        options = [each for each in command.params if each.param_type_name == "option"]
        usage = " ".join([called, *(_argument(each) for each in arguments), "[OPTIONS]"])
        yield from ["", f"## {called}", "", str(command.help).strip(), "", f"    {usage}"]
        rows = []
        for each in [*arguments, *options]:
            text = (each.help or "").replace("|", "\\|")
            if each in arguments:
                rows.append((f"`{_argument(each)}`", text, ""))
                continue
            if "--help" in each.opts:
                continue
            kind = each.type_descriptor.annotation
            metavar = "" if kind is bool else f" {each.metavar or TYPES.get(kind, 'TEXT')}"
            name = ", ".join([*each.opts, *each.secondary_opts])
            has = each.default not in (None, False, ()) and not callable(each.default)
            rows.append((f"`{name}{metavar}`", text, _code(each.default, has)))
        yield from ["", *_table(("", "", "default"), rows)]


def _argument(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _doc(thing: object) -> str:
    return " ".join((thing.__doc__ or "").split())


def _code(value: object, there: bool) -> str:
    if not there:
        return ""
    return f"`{value if isinstance(value, str) else orjson.dumps(value, default=str).decode()}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def _page(source: str, lines: Iterable[str]) -> str:
    return NOTE.format(source=source) + "\n".join(lines) + "\n"


TYPES = {int: "NUMBER", Path: "PATH"}
PAGES = {"http.md": http_page, "catalog.md": catalog_page, "cli.md": cli_page}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, page in PAGES.items():
        (FOLDER / file).write_text(page())
