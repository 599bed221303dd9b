"""The smallest value that fits a JSON schema, its texts being the answer: so structured outputs are always honoured."""

from __future__ import annotations

from typing import Any

SCALARS: dict[str, Any] = {"integer": 0, "number": 0.0, "boolean": False, "null": None}


class UnfittingSchemaError(ValueError):
    """A schema in a form that this teacher cannot fill."""


def fitting(schema: Any, text: str) -> Any:
    """A value of the schema with every text in it being `text`; all properties of objects are filled.

    Raises UnfittingSchemaError for a schema without a type that is known here.
    """
    if not isinstance(schema, dict):
        raise UnfittingSchemaError(f"a schema must be an object, not {schema!r}")
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object":
        return {name: fitting(each, text) for name, each in properties_of(schema).items()}
    if kind == "array":
        return [fitting(schema.get("items"), text) for _ in range(schema.get("minItems") or 1)]
    if kind == "string":
        return text
    if kind not in SCALARS:
        raise UnfittingSchemaError(f"this teacher fills schemas of a plain type, not {schema!r}")
    return SCALARS[kind]


def properties_of(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties of an object's schema; raises UnfittingSchemaError where they are no object."""
    properties = schema.get("properties") or {}
    if not isinstance(properties, dict):
        raise UnfittingSchemaError(f"the properties of a schema must be an object, not {properties!r}")
    return properties
