"""Options like `--features URL`, one for each store in the table of parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from kirana.cli.remembered import option_of
from kirana.part import OFF, StoreSetting
from kirana.serving.parts import PARTS, store_settings


def with_store_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each store to a command.

    The command receives the values as `**stores`, by setting. An option that is not given is None.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    parameters += [_parameter(store) for store in store_settings(PARTS).values()]

    @wraps(command)
    def with_stores(**options: Any) -> None:
        command(**options)

    with_stores.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_stores.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_stores


def store_option(store: StoreSetting) -> Any:
    """Return the Typer option for the URL of a store."""
    default = f"'{OFF}'" if store.optional else "LMDB in DIR/.kirana/data"
    return typer.Option(
        option_of(store.name),
        metavar="URL",
        help=f"The URL of the {store.what}. Default: that of the last 'kirana up', or {default}.",
    )


def _parameter(store: StoreSetting) -> inspect.Parameter:
    return inspect.Parameter(
        store.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, store_option(store)],
    )
