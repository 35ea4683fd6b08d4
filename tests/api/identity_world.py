"""A world for conversations about identity: requests that must succeed, and who is who."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.api.world import PASSWORD, V3, World, in_world, login


class People:
    """The world as its administrator asks it."""

    def __init__(self, world: World, admin: str) -> None:
        self.world, self.admin = world, admin

    async def ask(self, method: str, path: str, status: int, *, token: str = "", **more: Any) -> Any:
        """The JSON of the answer, which must have that status."""
        reply = await self.world.ask(method, V3 + path, token=token or self.admin, **more)
        assert reply.status_code == status, (method, path, reply.status_code, reply.text)
        return reply.json() if reply.content else None

    async def make(self, kind: str, **given: Any) -> str:
        """Its id. `kind`: project, user, group, role, domain."""
        made = await self.ask("POST", f"/{kind}s", 201, json={kind: given})
        return str(made[kind]["id"])

    async def id_of(self, kind: str, name: str) -> str:
        (row,) = (await self.ask("GET", f"/{kind}s?name={name}", 200))[f"{kind}s"]
        return str(row["id"])

    async def user(self, name: str, project_id: str | None = None, role: str = "member", **more: Any) -> str:
        """A user that can log in, with a role in a project."""
        user_id = await self.make("user", name=name, password=PASSWORD, **more)
        if project_id is not None:
            await self.give(f"/projects/{project_id}/users/{user_id}", role)
        return user_id

    async def give(self, place: str, role: str, end: str = "") -> None:
        await self.ask("PUT", f"{place}/roles/{await self.id_of('role', role)}{end}", 204)

    async def take(self, place: str, role: str, end: str = "") -> None:
        await self.ask("DELETE", f"{place}/roles/{await self.id_of('role', role)}{end}", 204)

    async def log_in(self, user: str, scope: Any, status: int = 201, password: str = PASSWORD, **by: Any) -> Any:
        """(token, its body), or the error's body. By name in the domain `by` names, else the default one."""
        person = {"name": user, "domain": by or {"id": "default"}, "password": password}
        return await self.prove({"methods": ["password"], "password": {"user": person}}, scope, status)

    async def prove(self, identity: dict[str, Any], scope: Any, status: int = 201) -> Any:
        auth = {"identity": identity} | ({} if scope is None else {"scope": scope})
        reply = await self.world.http.post(f"{V3}/auth/tokens", json={"auth": auth})
        assert reply.status_code == status, reply.text
        return (reply.headers["x-subject-token"], reply.json()["token"]) if status == 201 else reply.json()["error"]

    async def code(self, token: str, path: str, method: str = "GET") -> int:
        return (await self.world.ask(method, path, token=token)).status_code


@contextlib.asynccontextmanager
async def among_people(directory: Path, **settings: Any) -> AsyncIterator[People]:
    async with in_world(directory, **settings) as world:
        reply = await world.http.post(f"{V3}/auth/tokens", json=login("admin", "admin"))
        yield People(world, reply.headers["x-subject-token"])


def of_project(project_id: str) -> dict[str, Any]:
    return {"project": {"id": project_id}}


def names(roles: list[dict[str, Any]]) -> set[str]:
    return {role["name"] for role in roles}
