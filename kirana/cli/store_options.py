"""An option for each store, `--features URL`, from the table of the parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from kirana.part import StoreSetting
from kirana.serving.parts import PARTS, stores_of


def with_store_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each store; it takes them as `**stores`, by setting."""
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    stores = [_parameter(store) for store in stores_of(PARTS).values()]

    @wraps(command)
    def with_stores(**given: Any) -> None:
        command(**given)

    with_stores.__signature__ = signature.replace(parameters=[*own, *stores])  # type: ignore[attr-defined]
    with_stores.__annotations__ = {each.name: each.annotation for each in [*own, *stores]}
    return with_stores


def store_option(store: StoreSetting) -> Any:
    """Return what typer shows of the option of a store."""
    return typer.Option(
        f"--{store.name.replace('_', '-')}",
        metavar="URL",
        help=f"The {store.what}. Default: LMDB in DIR/.kirana/data.",
    )


def _parameter(store: StoreSetting) -> inspect.Parameter:
    return inspect.Parameter(
        store.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, store_option(store)],
    )
