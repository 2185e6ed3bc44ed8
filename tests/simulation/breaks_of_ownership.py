"""Replacements of a rule by the mutations of take-over, release and the look, as `breaks` has them for the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from clockwork.domain.ownership import IncarnationId, NodeState, ShardClaim, ShardState
from clockwork.domain.schedule import RequestId
from clockwork.domain.sharding import ShardId
from clockwork.firing.lease import ShardLease
from clockwork.firing.takeover import Takeover
from clockwork.ports.delivery import SlotName
from clockwork.requests import hold as holding
from clockwork.requests.context import RequestContext
from clockwork.requests.hold import Held, HoldAttempts
from clockwork.stores.memory.store import MemoryScheduleStore
from tests.simulation.kafka_host import IdClient, transactional_id
from tests.simulation.store_world import HostStore, StoreWorld

# --- take-over


def taking(*steps: str) -> Callable[..., Any]:
    """The steps of a take-over, in another order, or without one."""

    async def take_from(self: Takeover, group: Any, owner: IncarnationId, started_s: float) -> None:
        shards = group.shards
        node = (await self._store.read_nodes([owner]))[owner]
        named: Any = {}
        for step in steps:
            match step:
                case "fence":
                    node = await self._store.fence(owner, at_ms=self._context.clock.now_ms())
                case "init":
                    await self._publisher.settle(owner, slots=node.slots)
                case "init the last slot":
                    publisher: Any = self._publisher
                    await IdClient(publisher._brokers, transactional_id(SlotName(owner, node.slots - 1))).init()
                case "marker":
                    hints = {SlotName(owner, slot): node.hints.get(slot) for slot in range(node.slots)}
                    named = await self._publisher.read_markers(self._own.id, hints)
                case "clean up":
                    for shard in shards:
                        entries = [e for marker in named.values() for e in marker if e.shard == shard]
                        await self._clean_up(shard, list({e.position: e for e in entries}.values()))
                case "own":
                    claims = self._claims(shards, frontier_ms=node.frontier_ms)
                    await self._own_shards(group, claims, "fenced", started_s)

    return take_from


def owning(
    *, condition: bool = True, raises: bool = True, floor: bool = True, checks: bool = True
) -> Callable[..., Any]:
    """T3, but for one part."""

    async def take_shards(self: HostStore, claims: Sequence[ShardClaim], *, taker: IncarnationId) -> None:
        present = self.world.shard_states
        wanted = list(claims)

        def effect() -> None:
            nonlocal wanted
            if not condition:
                wanted = [replace(claim, epoch=present[claim.shard].epoch) for claim in claims]
            if not floor:
                wanted = [replace(claim, floor_ms=present[claim.shard].floor_ms) for claim in wanted]
            if not raises and all(present[claim.shard].epoch == claim.epoch for claim in claims):
                self._unfenced(taker)
                for claim in wanted:
                    present[claim.shard] = ShardState(epoch=max(1, claim.epoch), owner=taker, floor_ms=claim.floor_ms)
                return
            if not checks:
                vars(self)["_unfenced"] = self.nodes.get
            try:
                _take(self, wanted, taker)
            finally:
                vars(self).pop("_unfenced", None)

        await self._serve("take_shards", effect)

    return take_shards


def _take(self: HostStore, claims: Sequence[ShardClaim], taker: IncarnationId) -> None:
    """The store's own transaction, at one moment."""

    class AtOnce(MemoryScheduleStore):
        async def _serve(self, operation: str, effect: Callable[[], Any]) -> Any:
            return effect()

    once = AtOnce.__new__(AtOnce)
    once.__dict__.update(self.__dict__)
    once._apply = self._apply  # type: ignore[method-assign]
    running = once.take_shards(claims, taker=taker)
    try:
        running.send(None)
    except StopIteration:
        return
    raise AssertionError("one moment is enough")


async def absent_counts_as_zero(
    self: HostStore, incarnations: Sequence[IncarnationId]
) -> Mapping[IncarnationId, NodeState]:
    """An incarnation without an item counts as one with frontier 0."""
    found = dict(await _read_nodes(self, incarnations))
    return {each: found.get(each) or _zero(each) for each in incarnations}


async def absent_counts_as_zero_in_the_look(
    self: HostStore, shard: ShardId, incarnation: IncarnationId | None
) -> tuple[ShardState, NodeState | None]:
    """The same, in the look of a request."""
    state, node = await _read_shard_and_node(self, shard, incarnation)
    return state, node if node is not None or incarnation is None else _zero(incarnation)


def _zero(incarnation: IncarnationId) -> NodeState:
    return NodeState(incarnation=incarnation, frontier_ms=0, fenced_at_ms=None, slots=0, hints={}, node="")


def expire_nodes(self: StoreWorld) -> None:
    """TTL is on for the items of incarnations."""
    for incarnation in list(self.nodes):
        if self.rng.random() < 0.2:
            self.nodes.pop(incarnation)
    self.start_ttl()


async def fence_what_is_absent(self: HostStore, incarnation: IncarnationId, *, at_ms: int) -> NodeState:
    """The fence of an incarnation without an item makes one, with frontier 0."""
    return await _fence(self, incarnation, at_ms=at_ms) if incarnation in self.nodes else _zero(incarnation)


# --- release


async def release_with_the_old_floor(
    self: HostStore, shard: ShardId, *, epoch: int, owner: IncarnationId, floor_ms: int
) -> None:
    """A release leaves the floor as it was."""
    await _release_shard(self, shard, epoch=epoch, owner=owner, floor_ms=self.world.shard_states[shard].floor_ms)


def idle_if_nothing_is_in_flight(self: ShardLease) -> bool:
    """A shard is released while rows of it still await cleanup."""
    return not self.in_flight


def idle_if_all_is_clean(self: ShardLease) -> bool:
    """A shard is released while rows of it are in flight."""
    return not len(self.cleanup)


# --- frontier and look


async def raise_frontier_though_fenced(
    self: HostStore, incarnation: IncarnationId, *, frontier_ms: int, hints: Mapping[int, int]
) -> int:
    """A fenced incarnation may still raise its frontier."""

    def effect() -> int:
        node = self.nodes[incarnation]
        if node.fenced_at_ms is None and node.frontier_ms < frontier_ms:
            self.nodes[incarnation] = replace(node, frontier_ms=frontier_ms, hints={**node.hints, **hints})
        return frontier_ms

    return await self._serve("raise_frontier", effect)


async def look_before_hold(self: HoldAttempts) -> Held:
    """The shard's item is read before the hold."""
    context, pointer = self._context, self._pointer
    by = RequestId(f"{context.rng.getrandbits(128):032x}")
    shard, owner = await holding._shard_and_owner(context, pointer.shard)
    row = await context.store.hold(pointer.row_name, by)
    frontier_ms = shard.floor_ms if owner is None else max(shard.floor_ms, owner.frontier_ms)
    if frontier_ms >= holding._free_until_ms(row, epoch=shard.epoch):
        raise holding.TooLate
    return Held(row, by)


async def look_at_the_floor(context: RequestContext, shard: ShardId) -> tuple[ShardState, None]:
    """The look compares the floor alone, without the owner's frontier."""
    return await context.store.read_shard(shard), None


async def look_at_the_remembered_owner(context: RequestContext, shard: ShardId) -> tuple[ShardState, NodeState | None]:
    """The look believes the owner that was seen last, without comparing it with the shard's item."""
    guess = context.last_owners.get(shard)
    found, node = await context.store.read_shard_and_node(shard, guess)
    if found.owner is None or node is None:
        return await _shard_and_owner(context, shard)
    return found, node


_read_nodes = HostStore.read_nodes
_fence = HostStore.fence
_read_shard_and_node = HostStore.read_shard_and_node
_release_shard = HostStore.release_shard
_shard_and_owner = holding._shard_and_owner
