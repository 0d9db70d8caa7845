"""Recipes: how views are drawn."""
import ctypes
import os
from ctypes import byref, c_void_p
from typing import Any, List, Mapping, Optional, Union

from ._library import check, library

Settings = Union[None, str, Mapping[str, Any]]


def _lines(settings: Mapping[str, Any], prefix: str) -> List[str]:
    lines = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            lines += _lines(value, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key}: {str(value).lower() if isinstance(value, bool) else value}")
    return lines


def settings_text(settings: Settings) -> Optional[bytes]:
    """YAML of {"size": 96, "view1": {"blur": 0.5}} or {"view1.blur": 0.5}; text is taken as it is."""
    if settings is None or isinstance(settings, str):
        return settings.encode() if settings else None
    return "\n".join(_lines(settings, "")).encode() or None


def recipes() -> List[str]:
    """Names of the built-in recipes."""
    names: List[str] = []
    while True:
        name = library.byol_recipe_name(len(names))
        if name is None:
            return names
        names.append(name.decode())


def describe_recipe(recipe: Union[str, "os.PathLike[str]"] = "byol", settings: Settings = None) -> str:
    """All keys of a recipe with their values, as YAML, each explained."""
    text = c_void_p()
    check(library.byol_recipe_describe, os.fsencode(recipe), settings_text(settings), byref(text))
    try:
        return ctypes.string_at(text).decode()
    finally:
        library.byol_free(text)
