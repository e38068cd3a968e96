"""Control of what is served: the repository is read again, and models are loaded and unloaded on request."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.engine import Engine
from vedette_server.engine.served import ServedVersion
from vedette_server.engine.standing import State, why
from vedette_server.repository.repository import ModelVersion, RepositoryError
from vedette_server.repository.shelf import RefusedVersion, Shelf

log = structlog.get_logger()

_LOOK_SECONDS = 0.05  # between two looks whether a version is ready


class Control:
    """Keeps the engine in step with the repository, one change at a time."""

    def __init__(self, shelf: Shelf, engine: Engine) -> None:
        self._shelf = shelf
        self._engine = engine
        self._changing = asyncio.Lock()
        self._unloading: dict[asyncio.Task[None], str] = {}  # and the model's name
        self._told = ""  # the last fault of the whole repository, which is logged once

    @property
    def unloaded(self) -> Mapping[str, Sequence[int]]:
        """The models that were unloaded on request, and the versions that they had."""
        return self._shelf.hidden

    async def there(self) -> list[str]:
        """Return the names of the models in the repository, valid or not."""
        return await asyncio.to_thread(self._shelf.names)

    async def look(self) -> None:
        """Load new versions in the repository, and unload removed ones once a newer version answers."""
        async with self._changing:
            await self._look()

    async def _look(self, only: str | None = None) -> None:
        try:
            await asyncio.to_thread(self._shelf.look, only)
            self._told = ""
        except RepositoryError as error:
            if str(error) != self._told:
                log.error("repository_refused", error=str(error))  # noqa: TRY400  a reason, not a bug
            self._told = str(error)
        self._engine.set_aside(self._shelf.refused)
        await self._unload(self._engine.replace(self._shelf.versions))

    async def _unload(self, versions: Sequence[ServedVersion]) -> list[asyncio.Task[None]]:
        """Begin to unload versions: nothing new reaches them."""
        tasks = []
        for served in versions:
            task = asyncio.create_task(self._engine.unload(served))
            self._unloading[task] = served.model.name
            task.add_done_callback(self._unloading.pop)
            tasks.append(task)
        await asyncio.sleep(0)  # each has begun
        return tasks

    async def load(self, name: str) -> None:
        """Read a model's versions again, load the new ones, and wait until the newest is ready.

        Raises `Refused`: LOAD_REFUSED, SHUTTING_DOWN.
        """
        async with self._changing:
            if leaving := [task for task, of in self._unloading.items() if of == name]:
                await asyncio.wait(leaving)
            self._shelf.show(name)
            await self._look(name)
        there: list[ModelVersion | RefusedVersion] = [*self._shelf.versions, *self._shelf.refused]
        versions = [one for one in there if one.name == name]
        if not versions:
            raise _refusal(name, "", "no version of it can be served; the server's log says why")
        newest = max(versions, key=lambda one: one.version)
        if isinstance(newest, RefusedVersion):
            raise _refusal(name, newest.version, why(newest.reason.check))
        await self._until_ready(name, newest.version)
        log.info("loaded", model=name, version=newest.version)

    async def _until_ready(self, name: str, version: int) -> None:
        while not self._engine.draining:
            found = [one for one in self._engine.served if (one.model.name, one.model.version) == (name, version)]
            if not found:
                raise _refusal(name, version, "it was unloaded meanwhile")
            standing = found[0].standing
            if standing.state is State.READY:
                return
            if standing.state is State.UNAVAILABLE and not standing.takes_queries:
                raise _refusal(name, version, standing.reason)
            await asyncio.sleep(_LOOK_SECONDS)
        raise Refused(Reason.SHUTTING_DOWN)

    async def unload(self, name: str) -> None:
        """Unload a model's versions until it is loaded again; what they were given is answered before this returns."""
        async with self._changing:
            self._shelf.hide(name)
            self._engine.set_aside(self._shelf.refused)
            leaving = await self._unload([one for one in self._engine.served if one.model.name == name])
        for task in leaving:
            await asyncio.shield(task)
        log.info("unloaded", model=name)


def _refusal(name: str, version: int | str, reason: str) -> Refused:
    return Refused(Reason.LOAD_REFUSED, model=name, version=version, why=reason)
