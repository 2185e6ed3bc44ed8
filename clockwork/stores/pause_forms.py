"""The form of pauses, as both stores keep them in one item; their version stands beside it."""

from typing import Final

from clockwork.domain.pauses import Pause, Pauses
from clockwork.stores.forms import INTEGER, TEXT, Form, Member, by_name, inner

_PAUSE: Final = Form[Pause](
    Pause,
    Member("since_ms", "since", INTEGER),
    Member("by", "by", TEXT),
    Member("reason", "reason", TEXT, None),
)
_NAMES: Final = by_name(inner(_PAUSE))
PAUSES: Final = Form[Pauses](
    Pauses,
    Member("clients", "clients", _NAMES),
    Member("topics", "topics", _NAMES),
    given=("version",),
)
