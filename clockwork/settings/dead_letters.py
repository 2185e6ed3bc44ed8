"""The setting of where dead letters go; see `clockwork.settings.model`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field

from clockwork.settings.parsing import client_topic, listed

DEAD_LETTER_TOPICS: Final = "CLOCKWORK_DEAD_LETTER_TOPICS"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterSettings:
    """Clients whose dead letters go to topics of their own."""

    topics: Annotated[
        tuple[Annotated[str, AfterValidator(client_topic)], ...] | None,
        BeforeValidator(listed),
        Field(
            alias=DEAD_LETTER_TOPICS,
            description="other topics for some clients' dead letters: clientId=topic, by commas",
        ),
    ] = None

    def of_clients(self) -> dict[str, str]:
        """The topics, by client."""
        return {client: topic for client, _, topic in (each.partition("=") for each in self.topics or ())}

    def disagreements(self, cluster: str) -> Iterator[str]:
        """Values that are fine alone and wrong together."""
        named = Counter(each.partition("=")[0] for each in self.topics or ())
        for client in (client for client, times in named.items() if times > 1):
            yield f"{DEAD_LETTER_TOPICS}: names client {client} twice: its dead letters can have one topic"
        for topic in dict.fromkeys(self.of_clients().values()):
            if topic.startswith((f"{cluster}-", "__")):
                whose = "Kafka" if topic.startswith("__") else "Clockwork"
                yield f"{DEAD_LETTER_TOPICS}: {topic} is {whose}'s own: name a topic of the client's"
