"""Checks the options of an environment against what its factory takes, before anything is made of them."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from envs.errors import EnvError


def check_options(factory: Callable[..., Any], options: Mapping[str, Any], env_id: str) -> None:
    """Returns if every option is known and of the type that the factory's signature says.

    Raises:
        EnvError: naming the option, and what was expected.
    """
    try:
        parameters = inspect.signature(factory, eval_str=True).parameters
    except (TypeError, ValueError, NameError):
        return  # no signature that can be read: the factory itself has the word
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    known = {
        name: parameter.annotation
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    for name, value in options.items():
        if name not in known:
            if takes_any:
                continue
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise EnvError(f"env.options of {env_id!r}: there is no option {name!r}{hint}")
        if known[name] is not inspect.Parameter.empty:
            _check_type(name, value, known[name], env_id)


def _check_type(name: str, value: object, annotation: Any, env_id: str) -> None:
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except PydanticSchemaGenerationError:
        return  # a type of the factory's own
    except ValidationError as error:
        expected = getattr(annotation, "__name__", str(annotation))
        problem = error.errors()[0]["msg"]
        raise EnvError(
            f"env.options.{name} of {env_id!r} is {value!r}, expected {expected} ({problem[0].lower()}{problem[1:]})"
        ) from None
