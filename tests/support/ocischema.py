"""The JSON schemas of the OCI runtime specification, and the names of the fields that they describe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import referencing
from referencing.jsonschema import DRAFT4

FOLDER = Path(__file__).parents[1] / "schema" / "oci-runtime-spec-1.3.0"
OTHER_PLATFORMS = ("windows", "solaris", "zos", "freebsd", "vm")


def load(name: str) -> dict[str, Any]:
    """One file."""
    schema: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return schema


def problems(document: object, name: str = "config-schema.json") -> list[str]:
    """What the schema does not like, `PATH: REASON` each."""
    files = [(path.name, DRAFT4.create_resource(load(path.name))) for path in FOLDER.glob("*.json")]
    registry: referencing.Registry[Any] = referencing.Registry().with_resources(files)
    validator = jsonschema.Draft4Validator(load(name), registry=registry)
    found = sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.path)))
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in found]


def fields() -> set[str]:
    """The path of each member of a config that the schema names: `process.rlimits[].type`.

    Members of objects with names of their own are `linux.netDevices.*`; other platforms' stop at their section.
    """
    return set(_walk(load("config-schema.json"), "config-schema.json", ""))


def _walk(schema: dict[str, Any], file: str, path: str) -> Iterator[str]:
    schema, file = _resolve(schema, file)
    for part in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
        yield from _walk(part, file, path)
    if "items" in schema:
        yield from _walk(schema["items"], file, f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _walk(schema["additionalProperties"], file, f"{path}.*")
    for name, member in schema.get("properties", {}).items():
        inner = f"{path}.{name}" if path else name
        yield inner
        if inner not in OTHER_PLATFORMS:
            yield from _walk(member, file, inner)


def _resolve(schema: dict[str, Any], file: str) -> tuple[dict[str, Any], str]:
    while "$ref" in schema:
        name, _, pointer = schema["$ref"].partition("#")
        file = name or file
        schema = load(file)
        for part in pointer.strip("/").split("/"):
            schema = schema[part]
    return schema, file
