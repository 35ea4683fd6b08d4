"""The query strings of Placement: which keys there are at which version, what their values say, and which hosts they
match."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from droveway.api.http.faults import BadQuery
from droveway.api.http.request import Request
from droveway.api.http.validate import INT_MAX, canonical, is_uuid
from droveway.api.placement import view
from droveway.domain.placement import PlacementSettings
from droveway.domain.traits import KNOWN
from droveway.store.compute.inventories import Provider

FORBIDDEN_TRAITS, FORBIDDEN_AGGREGATES, ANY_TRAIT = 22, 32, 39  # since 1.N
MANY_MEMBER_OF = 24


class CandidateRequest(msgspec.Struct, frozen=True):
    """What one group of keys asks of a host. Of each set in `required` and `member_of` it needs at least one."""

    resources: dict[str, int] = {}
    required: tuple[frozenset[str], ...] = ()
    forbidden: frozenset[str] = frozenset()
    member_of: tuple[frozenset[str], ...] = ()
    outside: frozenset[str] = frozenset()
    in_tree: str | None = None


Given = Mapping[str, list[str]]


def given(request: Request, known: Mapping[str, int]) -> dict[str, list[str]]:
    """The values of each key. `known`: the keys, each with the version since which there is one."""
    found: dict[str, list[str]] = {}
    for name, value in request.query:
        if request.version < known.get(name, request.version + 1):
            reason = f"additional properties are not allowed ('{name[:64]}' was unexpected)."
            raise BadQuery(f"Invalid query string parameters: {reason}")
        found.setdefault(name, []).append(value)
    return found


def one(values: Given, name: str) -> str | None:
    """The only value of that key."""
    several = values.get(name, [])
    if len(several) > 1:
        raise BadQuery(f"Invalid query string parameters: {name} may be given once.")
    return several[0] if several else None


def wanted(values: Given, version: int, suffix: str = "") -> CandidateRequest:
    """What the keys with that suffix ask for."""
    required, forbidden = traits(values.get(f"required{suffix}", []), version, f"required{suffix}")
    member_of, outside = _aggregates(values.get(f"member_of{suffix}", []), version, f"member_of{suffix}")
    amounts = one(values, f"resources{suffix}")
    return CandidateRequest(
        resources={} if amounts is None else _resources(amounts, f"resources{suffix}"),
        required=required,
        forbidden=forbidden,
        member_of=member_of,
        outside=outside,
        in_tree=uuid_of(values, f"in_tree{suffix}"),
    )


def uuid_of(values: Given, name: str) -> str | None:
    value = one(values, name)
    if value is not None and not is_uuid(value):
        raise BadQuery(f"Invalid query string parameters: {name} must be a uuid. Got: {value[:64]}")
    return None if value is None else canonical(value)


def _resources(text: str, name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in text.split(","):
        resource, colon, amount = part.partition(":")
        if not colon or resource in found:
            raise BadQuery(
                f"Badly formed {name} parameter. Expected {name} query string parameter in form: "
                f"?{name}=VCPU:2,MEMORY_MB:1024. Got: {text[:200]}"
            )
        if not (amount.isascii() and amount.isdigit() and len(amount) <= 10 and 1 <= int(amount) <= INT_MAX):
            raise BadQuery(f"Requested resource {resource[:64]} requires a positive integer amount. Got: {amount[:64]}")
        if resource not in view.CLASSES:
            raise BadQuery(f"Invalid resource class in {name} parameter: No such resource class {resource[:255]}.")
        found[resource] = int(amount)
    return found


def traits(texts: list[str], version: int, name: str) -> tuple[tuple[frozenset[str], ...], frozenset[str]]:
    """What is required (one of each set) and what is forbidden."""
    if len(texts) > 1 and version < ANY_TRAIT:
        raise BadQuery(f"Invalid query string parameters: {name} may be given once before microversion 1.{ANY_TRAIT}.")
    required: list[frozenset[str]] = []
    forbidden: set[str] = set()
    for text in texts:
        if text.startswith("in:") and version >= ANY_TRAIT:
            required.append(frozenset(text.removeprefix("in:").split(",")))
            continue
        for trait in text.split(","):
            if trait.startswith("!") and version >= FORBIDDEN_TRAITS:
                forbidden.add(trait[1:])
            else:
                required.append(frozenset((trait,)))
    unknown = sorted(trait for trait in forbidden.union(*required) if trait not in KNOWN)
    if unknown:
        shown = ", ".join(trait[:255] or "''" for trait in unknown[:5])
        raise BadQuery(f'Invalid trait(s) in "{name}" parameter: No such trait(s): {shown}.')
    both = sorted(trait for trait in forbidden if frozenset((trait,)) in required)
    if both:
        raise BadQuery(f"Conflicting required and forbidden traits found in {name}: {', '.join(both)}.")
    return tuple(required), frozenset(forbidden)


def _aggregates(texts: list[str], version: int, name: str) -> tuple[tuple[frozenset[str], ...], frozenset[str]]:
    """`uuid`, `in:uuid,uuid`, and either with a `!` before it."""
    if len(texts) > 1 and version < MANY_MEMBER_OF:
        raise BadQuery(f"Invalid query string parameters: {name} may be given once before microversion 1.24.")
    member_of: list[frozenset[str]] = []
    outside: set[str] = set()
    for text in texts:
        is_forbidden = text.startswith("!") and version >= FORBIDDEN_AGGREGATES
        listed = text[1:] if is_forbidden else text
        uuids = frozenset(listed.removeprefix("in:").split(",") if listed.startswith("in:") else [listed])
        if not all(map(is_uuid, uuids)):
            raise BadQuery(f"Expected '{name}' parameter to contain valid UUID(s). Got: {text[:200]}")
        uuids = frozenset(map(canonical, uuids))
        if is_forbidden:
            outside |= uuids
        else:
            member_of.append(uuids)
    return tuple(member_of), frozenset(outside)


# -- which hosts match ------------------------------------------------------------------------------------------------
def suits(provider: Provider, asked: CandidateRequest) -> bool:
    """Whether it is such a host, room apart."""
    if asked.in_tree not in (None, provider.facts.uuid):
        return False
    if asked.required or asked.forbidden:
        has = view.traits(provider.facts)
        if has & asked.forbidden or not all(has & one_of for one_of in asked.required):
            return False
    within = set(provider.aggregates)
    return not within & asked.outside and all(within & one_of for one_of in asked.member_of)


def has_capacity(provider: Provider, amounts: Mapping[str, int], settings: PlacementSettings) -> bool:
    """Whether all of this fits there beside what is held."""
    if not amounts:
        return True
    there, held = view.inventories_of(provider.facts, settings), view.used(provider.facts)
    return all(
        name in there and amount <= there[name].max_unit and held[name] + amount <= there[name].capacity
        for name, amount in amounts.items()
    )
