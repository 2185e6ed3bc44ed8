"""Rights: a principal may do exactly what is listed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.destination import Topic
from clockwork.domain.rights import ANYONE, Names, Principal, Right, authorize, names_of
from clockwork.domain.schedule import ClientId
from clockwork.errors import Forbidden

names = st.text("ab.-", min_size=1, max_size=4)
patterns = st.lists(st.tuples(names, st.booleans()), max_size=4)
rights = st.frozensets(st.sampled_from(Right))


def written(listed: list[tuple[str, bool]]) -> list[str]:
    return [name + "*" * is_prefix for name, is_prefix in listed]


def covered(listed: list[tuple[str, bool]], name: str) -> bool:
    """The same rule, written another way."""
    return any(name[: len(each)] == each if is_prefix else name == each for each, is_prefix in listed)


@given(rights, patterns, patterns, st.sampled_from(Right), names, st.none() | names)
def test_what_is_allowed_is_exactly_what_is_listed(
    has: frozenset[Right],
    clients: list[tuple[str, bool]],
    topics: list[tuple[str, bool]],
    right: Right,
    client: str,
    topic: str | None,
) -> None:
    principal = Principal(name="p", clients=names_of(written(clients)), topics=names_of(written(topics)), rights=has)
    wrong = []
    if not covered(clients, client):
        wrong.append("clientId")
    if topic is not None and not covered(topics, topic):
        wrong.append("delivery.topic")
    if right in has and not wrong:
        authorize(principal, right, ClientId(client), Topic(topic) if topic is not None else None)
        return
    with pytest.raises(Forbidden) as refused:
        authorize(principal, right, ClientId(client), Topic(topic) if topic is not None else None)
    assert [e.field for e in refused.value.errors] == (wrong if right in has else [])


def test_no_right_implies_another() -> None:
    for has in Right:
        principal = Principal(name="p", clients=names_of(["*"]), topics=names_of(["*"]), rights=frozenset({has}))
        for right in set(Right) - {has}:
            with pytest.raises(Forbidden, match=right.value):
                authorize(principal, right, ClientId("c"))


def test_nothing_is_covered_by_an_empty_list_and_everything_by_a_star() -> None:
    assert not names_of([]).cover("a")
    assert not Names().cover("")
    assert names_of(["*"]).cover("a")
    for right in Right:
        authorize(ANYONE, right, ClientId("c"), Topic("t"))


@pytest.mark.parametrize("pattern", ["", "a*b", "**", "*a", "a**"])
def test_a_star_stands_at_the_end_and_nowhere_else(pattern: str) -> None:
    with pytest.raises(ValueError, match="should be a name"):
        names_of([pattern])
