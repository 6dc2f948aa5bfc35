"""The options of who works on a collection, the same for every command that has much to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lisrd.errors import InputError

if TYPE_CHECKING:
    from lisrd.scale.work import Engine

EngineOption = Annotated[str, typer.Option(help="local, or ray: many processes or machines.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="local: threads; by default one for each core.")
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        help="ray: the cluster, HOST:PORT or auto; by default one of this machine's cores.",
    ),
]


def build_engine(
    name: str, workers: int | None = None, ray_address: str | None = None, device: str = "cpu"
) -> Engine:
    """The engine that the options ask for; on a GPU a task of Ray's takes one. Raises InputError for other names."""
    from lisrd.scale import LocalEngine, RayEngine

    if name == "local":
        return LocalEngine(workers)
    if name == "ray":
        return RayEngine(ray_address, gpus=1.0 if device.startswith("cuda") else 0.0)
    raise InputError(f"--engine is {name!r}; use local or ray")
