"""Allocation candidates: the hosts on which a set of resources would fit now. Whether a host is up is not asked, as
nowhere in Placement; one that is disabled has the trait COMPUTE_STATUS_DISABLED, which a request may forbid.

A host is a tree of one provider, so all groups of a request go to the same one, and groups that insist on different
ones go nowhere.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from droveway.api.http.faults import BadQuery
from droveway.api.http.request import Request, Response, encode, encode_each
from droveway.api.http.validate import INT_MAX
from droveway.api.placement import queries, view
from droveway.api.placement.queries import CandidateRequest, Given
from droveway.api.wiring import Api
from droveway.store.compute import inventories
from droveway.store.compute.inventories import Provider
from droveway.store.engine.transaction import Tx

_GROUP_KEYS = {"resources": 10, "required": 17, "member_of": 21, "in_tree": 31}  # each since 1.N
_KEYS = {**_GROUP_KEYS, "limit": 16, "group_policy": 25, "root_required": 35, "same_subtree": 36}
_SUFFIXED, _ANY_SUFFIX, _SUBTREES = 25, 33, 36
_NUMBER = re.compile(r"(resources|required|member_of|in_tree)([1-9][0-9]{0,9})")
_WORD = re.compile(r"(resources|required|member_of|in_tree)([a-zA-Z0-9_-]{1,64})")

Groups = dict[str, CandidateRequest]


async def listing(api: Api, request: Request) -> Response:
    version = request.version
    suffixes: dict[str, int] = {}
    known = dict(_KEYS)
    for name, _ in request.query:
        match = (_WORD if version >= _ANY_SUFFIX else _NUMBER).fullmatch(name)
        if match is not None and name not in _KEYS:
            suffixes[match[2]] = known[name] = max(_SUFFIXED, _GROUP_KEYS[match[1]])
    values = queries.given(request, known)
    groups = _groups(values, version, ["", *suffixes])
    root = queries.traits(values.get("root_required", []), version, "root_required")
    asked = [*groups.values(), CandidateRequest(required=root[0], forbidden=root[1])]
    limit = _limit(values)
    total = _total(groups)
    apart = (
        queries.one(values, "group_policy") == "isolate" and sum(bool(g.resources) for s, g in groups.items() if s) > 1
    )

    def fits(provider: Provider) -> bool:
        return all(queries.suits(provider, each) for each in asked) and queries.has_capacity(
            provider, total, api.settings.placement
        )

    def read(tx: Tx) -> bytes:
        found = [] if apart else list(islice(filter(fits, inventories.providers(tx)), limit))
        requests = encode_each(_request(p, version, total, groups) for p in found)
        summaries = encode_each(_summary(api, p, version, total) for p in found)
        by_uuid = dict(zip((p.facts.uuid for p in found), summaries, strict=True))
        return encode({"allocation_requests": requests, "provider_summaries": by_uuid})

    return view.answer(api, request, await api.store.read(read))


# -- what is asked ----------------------------------------------------------------------------------------------------
def _groups(values: Given, version: int, suffixes: list[str]) -> Groups:
    """The groups of keys by their suffix. Raises BadQuery where they do not belong together."""
    groups = {suffix: queries.wanted(values, version, suffix) for suffix in suffixes}
    together = {part for text in values.get("same_subtree", []) for part in text.split(",")}
    strange = sorted(together - groups.keys() | together & {""})
    if strange:
        raise BadQuery(f"Real suffixes should be specified in same_subtree. Got: {strange[0][:64]!r}")
    for suffix, group in groups.items():
        if not group.resources and suffix not in together and group != CandidateRequest():
            raise BadQuery(f"All request groups must specify resources: there is no resources{suffix}.")
    if not any(group.resources for group in groups.values()):
        raise BadQuery("Invalid query string parameters: 'resources' is a required property.")
    policy = queries.one(values, "group_policy")
    if policy not in (None, "none", "isolate"):
        raise BadQuery(f"Invalid query string parameters: group_policy must be none or isolate. Got: {policy[:64]}")
    numbered = [suffix for suffix, group in groups.items() if suffix and group.resources]
    if policy is None and len(numbered) > 1:
        raise BadQuery(
            'The "group_policy" parameter is required when specifying more than one "resources{N}" parameter.'
        )
    return {suffix: group for suffix, group in groups.items() if suffix or group != CandidateRequest()}


def _limit(values: Given) -> int | None:
    text = queries.one(values, "limit")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= INT_MAX):
        raise BadQuery(f"Invalid query string parameters: limit must be a whole number above 0. Got: {text[:64]}")
    return int(text)


def _total(groups: Groups) -> dict[str, int]:
    total: dict[str, int] = {}
    for group in groups.values():
        for name, amount in group.resources.items():
            total[name] = total.get(name, 0) + amount
    return total


# -- what is told -----------------------------------------------------------------------------------------------------
def _request(provider: Provider, version: int, total: dict[str, int], groups: Groups) -> dict[str, Any]:
    """What would be claimed there: a list up to 1.11, by provider since; and which group goes where since 1.34."""
    uuid = provider.facts.uuid
    if version < 12:
        return {"allocations": [{"resource_provider": {"uuid": uuid}, "resources": total}]}
    body: dict[str, Any] = {"allocations": {uuid: {"resources": total}}}
    if version >= 34:
        body["mappings"] = {suffix: [uuid] for suffix in groups}
    return body


def _summary(api: Api, provider: Provider, version: int, total: dict[str, int]) -> dict[str, Any]:
    """Of the classes asked for up to 1.26, of all since."""
    held = view.used(provider.facts)
    there = view.inventories_of(provider.facts, api.settings.placement)
    body: dict[str, Any] = {
        "resources": {
            name: {"capacity": inventory.capacity, "used": held[name]}
            for name, inventory in there.items()
            if version >= 27 or name in total
        }
    }
    if version >= 17:
        body["traits"] = sorted(view.traits(provider.facts))
    if version >= 29:
        body |= {"parent_provider_uuid": None, "root_provider_uuid": provider.facts.uuid}
    return body
