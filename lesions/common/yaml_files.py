"""YAML files that people write: read as DVC reads them, checked, every error in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lesions.common.errors import LesionsError

Model = TypeVar("Model", bound=BaseModel)
Explain = Callable[[dict[str, Any]], str | None]


def parse_yaml(text: str) -> Any:
    """Parse YAML 1.2, by the library that DVC uses.

    Raises:
        ValueError: it is not valid YAML.
    """
    try:
        return YAML(typ="safe").load(text)
    except (YAMLError, RecursionError) as error:
        raise ValueError(
            " ".join(str(error).partition("To suppress this check")[0].split())
        ) from None


def read_yaml(path: Path, model: type[Model], missing: str, explain: Explain) -> Model:
    """Read a YAML file and check it as a whole.

    Args:
        path: the file.
        model: what it must hold.
        missing: what to do if the file or one of its keys is missing.
        explain: words one of pydantic's errors; None leaves that to `_explain`.

    Raises:
        LesionsError: names the file, every wrong key, the value found and what is allowed.
    """
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LesionsError(f"{path}: {error.strerror}. {missing}") from None
    except ValueError as error:
        raise LesionsError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise LesionsError(f"{path}: holds {type(values).__name__}, not keys with values.")
    return check_values(path, values, model, explain)


def check_values(path: Path, values: Any, model: type[Model], explain: Explain) -> Model:
    """Check values as `read_yaml` does."""
    try:
        return model.model_validate(values)
    except ValidationError as invalid:
        lines: dict[str, None] = {}
        for wrong in invalid.errors():
            lines.setdefault(explain(dict(wrong)) or _explain(dict(wrong), model))
        raise LesionsError(f"{path}: " + "; ".join(lines)) from None


def key_of(error: dict[str, Any]) -> str:
    """Name the key that one of pydantic's errors is about, with dots."""
    return ".".join(str(part) for part in error["loc"] if part != "[key]")


def _explain(error: dict[str, Any], model: type[BaseModel]) -> str:
    """Say in one line which key is wrong, what was found and what is allowed."""
    key = key_of(error)
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known here: {', '.join(model.model_fields)}"
    if error["type"] == "missing":
        return f"key {key!r} is missing; the published file has it"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "string_pattern_mismatch" and "x00" in error["ctx"]["pattern"]:
        return f"{key} is {error['input']!r}: control characters are not allowed"
    return f"{key} is {error['input']!r}: {error['msg'].replace('Input', 'it', 1)}"
