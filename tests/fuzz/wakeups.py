"""Records on the ownership topic: whatever is in them, the owner's loop goes on, and what can be read is only a hint."""

import json
from typing import Final

from hypothesis import strategies as st

from clockwork.domain import wakeup
from clockwork.errors import Unreadable
from tests.fuzz.requests import JSON
from tests.fuzz.rows import POSITIONS
from tests.fuzz.tally import Tally

CAMPAIGN: Final = "wake-ups"

_TIMES: Final = st.sampled_from([0, -1, 1, 10**13, 2**63, 10**400, -(10**400), 1.5, True, None, "soon"])
_DOCUMENTS: Final = st.one_of(
    st.builds(lambda due: {"due": due}, _TIMES),
    st.builds(lambda at: {"position": at}, POSITIONS | JSON),
    st.builds(lambda due, at: {"due": due, "position": at}, _TIMES, POSITIONS | JSON),
    JSON,
)
VALUES: Final[st.SearchStrategy[bytes | None]] = st.integers(0, 5).flatmap(
    lambda kind: (
        _DOCUMENTS.map(lambda document: json.dumps(document).encode())
        if kind
        else st.one_of(
            st.none(),
            st.binary(max_size=60),
            st.sampled_from([b"", b"{}", b'"position"', b'["position"]', b'{"due":1']),
            st.builds(
                lambda part, count: part * count, st.sampled_from([b"[", b"9", b"x"]), st.sampled_from([5_000, 900_000])
            ),
        )
    )
)


def check(value: bytes | None, tally: Tally) -> bool:
    """True if it is a wake-up. Raises: whatever `decode` raises besides what it says it does."""
    try:
        found = wakeup.decode(value)
    except Unreadable as error:
        said = str(error)
    else:
        tally.add(CAMPAIGN, f"a hint: {type(found).__name__}")
        return True
    assert len(said) < 1_000, "what is logged must not be a megabyte"
    tally.add(CAMPAIGN, "not a wake-up")
    return False
