"""Which NUMA cells, and which CPUs, a guest gets. Pure, and without numpy.

The guest's vcpus and memory are spread evenly over its nodes, each node on a cell of its own; the first nodes take what
does not divide. A cell's memory is never promised twice, and neither is a CPU that a pinned guest holds. A cell whose
CPUs are shared keeps at least as many as the largest guest that floats over it has vcpus there.
"""

from __future__ import annotations

from collections import Counter

from droveway.domain.placement import HeldCell, HostFacts, PlacementRequest

FIELDS = ("shared_cpus", "own_cpus", "memory_mb")
Free = tuple[int, int, int, int]  # the cell's id, then FIELDS: CPUs to float over, CPUs to be pinned to, memory


def nodes_of(ask: PlacementRequest) -> list[tuple[int, int, int]]:
    """(vcpus, memory, how many nodes need at least that much), the largest first. A larger node has no less of either,
    so the ask fits exactly when for each line that many cells have room."""
    if ask.numa is None:
        return []
    rows = Counter(_node(ask, index, ask.numa.nodes) for index in range(ask.numa.nodes))
    nodes, so_far = [], 0
    for (vcpus, memory_mb), count in sorted(rows.items(), reverse=True):
        so_far += count
        nodes.append((vcpus, memory_mb, so_far))
    return nodes


def _node(ask: PlacementRequest, index: int, nodes: int) -> tuple[int, int]:
    return ask.vcpus // nodes + (index < ask.vcpus % nodes), ask.ram_mb // nodes + (index < ask.ram_mb % nodes)


def _taken(facts: HostFacts) -> dict[int, set[int]]:
    taken: dict[int, set[int]] = {}
    for held in facts.held_cells:
        taken.setdefault(held.cell, set()).update(held.cpus)
    return taken


def free_cells(facts: HostFacts) -> list[Free]:
    """What is free of each cell of this host, in the order of `facts.cells`."""
    if not facts.held_cells:
        return [(cell.id, len(cell.cpus), len(cell.cpus), cell.memory_mb) for cell in facts.cells]
    taken, floating, memory = _taken(facts), dict[int, int](), Counter[int]()
    for held in facts.held_cells:
        memory[held.cell] += held.memory_mb
        if not held.cpus:
            floating[held.cell] = max(floating.get(held.cell, 0), held.vcpus)
    rows = []
    for cell in facts.cells:
        shared = sum(cpu not in taken.get(cell.id, ()) for cpu in cell.cpus)
        own = max(0, shared - floating.get(cell.id, 0))
        rows.append((cell.id, shared, own, max(0, cell.memory_mb - memory[cell.id])))
    return rows


def fit_cells(facts: HostFacts, ask: PlacementRequest) -> tuple[HeldCell, ...]:
    """The cells and CPUs that this guest gets there; () when it asks for none, or does not fit.

    A pinned guest goes where the fewest CPUs are left, so that a larger one still finds a whole cell; one that floats
    goes where most are."""
    if ask.numa is None or ask.numa.nodes > ask.vcpus:
        return ()
    pinned = ask.numa.pinned
    free = free_cells(facts)
    taken = _taken(facts)
    cpus = {cell.id: [cpu for cpu in cell.cpus if cpu not in taken.get(cell.id, ())] for cell in facts.cells}
    given: list[HeldCell] = []
    for index in range(ask.numa.nodes):
        vcpus, memory_mb = _node(ask, index, ask.numa.nodes)
        fitting = [row for row in free if row[2 if pinned else 1] >= vcpus and row[3] >= memory_mb]
        if not fitting:
            return ()
        best = min(fitting, key=lambda row: (row[2] if pinned else -row[1], -row[3], row[0]))
        free.remove(best)
        given.append(HeldCell(best[0], vcpus, memory_mb, tuple(cpus[best[0]][:vcpus]) if pinned else ()))
    return tuple(given)
