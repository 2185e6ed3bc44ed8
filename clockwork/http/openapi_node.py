"""The node's own calls, described."""

from http import HTTPStatus
from typing import Final

from clockwork.http.openapi_parts import ANYWHERE, Answer, Call, problem
from clockwork.schema import problems
from clockwork.schema.documents import AliveDocument, ReadyDocument, UnreadyDocument

NODE: Final = "node"

_SILENT: Final = "process 1 does not answer"
NODE_CALLS: Final = (
    Call(
        method="GET",
        path="/livez",
        name="livez",
        tag=NODE,
        summary="Does the process turn?",
        description="If not, a restart helps.",
        keyed=False,
        answers={
            **ANYWHERE,
            200: Answer(description="It does.", model=AliveDocument, examples={"alive": {"status": "alive"}}),
            503: problem(
                "One of several processes does not.",
                model=UnreadyDocument,
                silent=problems.unavailable(_SILENT, more={"reasons": [_SILENT]}),
            ),
        },
    ),
    Call(
        method="GET",
        path="/readyz",
        name="readyz",
        tag=NODE,
        summary="Can the node do what its role does?",
        description="For `api` and `all` that is DynamoDB and the clock; Kafka's state is in the details.",
        keyed=False,
        answers={
            **ANYWHERE,
            200: Answer(
                description="It can.",
                model=ReadyDocument,
                examples={"ready": {"status": "ready", "reasons": [], "details": {"kafka": {"connected": True}}}},
            ),
            503: problem(
                "It cannot, and why.",
                model=UnreadyDocument,
                unready=problems.unavailable(
                    "DynamoDB does not answer", more={"reasons": ["DynamoDB does not answer"], "details": {}}
                ),
            ),
        },
    ),
    Call(
        method="GET",
        path="/metrics",
        name="metrics",
        tag=NODE,
        summary="Figures for Prometheus",
        description="Prometheus' text format.",
        keyed=False,
        answers={200: Answer(description="All figures.", media_type="text/plain"), **ANYWHERE},
    ),
    Call(
        method="GET",
        path="/openapi.json",
        name="openapi",
        tag=NODE,
        summary="This document",
        description="OpenAPI 3.1.",
        keyed=False,
        answers={200: Answer(description="The document.", media_type="application/json"), **ANYWHERE},
    ),
    Call(
        method="GET",
        path="/docs",
        name="docs",
        tag=NODE,
        summary="This document as a page",
        description="Works without the internet.",
        keyed=False,
        answers={200: Answer(description="The page.", media_type="text/html"), **ANYWHERE},
    ),
    Call(
        method="GET",
        path="/docs/{file}",
        name="docsFile",
        tag=NODE,
        summary="What the page needs",
        description="Its script and its style.",
        keyed=False,
        answers={
            **ANYWHERE,
            200: Answer(description="The file.", media_type="*/*"),
            404: problem("No such file.", unknown=problems.of_http(HTTPStatus.NOT_FOUND)),
        },
    ),
)
