"""Reading JSON that somebody else wrote: whatever it holds, it is data or it is refused."""

from __future__ import annotations

import json
from typing import Any

from searchlib.arguments import file_path, shown
from searchlib.errors import InvalidSettings

__all__ = ["json_object", "parsed_json", "read_json"]


def parsed_json(where: str, text: str | bytes) -> Any:
    """The value of a JSON text; ``where`` says in messages where it stands.

    Raises:
        InvalidSettings: it is no JSON, is nested too deeply, or holds a number of thousands of digits.

    Example:
        >>> parsed_json("the plan", '{"bits": 4}')
        {'bits': 4}
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSettings(f"{where} must be JSON, but {shown(text)} is none: {error}") from error


def read_json(path: Any) -> Any:
    """The value of a JSON file.

    Raises:
        InvalidSettings: there is no such file, or it is no JSON in UTF-8.
    """
    file = file_path("path", path)
    try:
        return parsed_json(str(file), file.read_bytes())
    except OSError as error:
        raise InvalidSettings(f"{file} cannot be read: {error.strerror}") from error


def json_object(where: str, value: Any) -> dict[str, Any]:
    """``value``, which must be a JSON object.

    Raises:
        InvalidSettings: it is something else.
    """
    if not isinstance(value, dict):
        raise InvalidSettings(f"{where} must be a JSON object, but is {shown(value)}")
    return value
