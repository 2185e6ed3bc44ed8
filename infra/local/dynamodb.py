"""DynamoDB Local: in memory, or in a file for data that should outlive the process."""

from pathlib import Path

import aiohttp

from infra.local.jars import DYNAMODB
from infra.local.service import JavaService

HOST = "127.0.0.1"
ANSWER_SECONDS_MAX = 2.0
LIST_TABLES_HEADERS = {
    "Content-Type": "application/x-amz-json-1.0",
    "X-Amz-Target": "DynamoDB_20120810.ListTables",
    # It asks for the form of a signature, and checks only the access key, which names an account.
    "Authorization": (
        "AWS4-HMAC-SHA256 Credential=local/20260101/local/dynamodb/aws4_request, SignedHeaders=host, Signature=none"
    ),
}


class DynamoDB(JavaService):
    """DynamoDB Local as a child process."""

    name = "DynamoDB Local"
    jars = DYNAMODB
    port_option = "--dynamodb-port (or dynamodb_port=)"
    memory_mb = 512

    def __init__(self, *, port: int | None, home: Path, log_path: Path, scratch: Path | None, in_memory: bool) -> None:
        super().__init__(port=port, home=home, log_path=log_path, scratch=scratch)
        self._in_memory = in_memory

    async def prepare(self, port: int) -> list[str]:
        storage = ["-inMemory"] if self._in_memory else ["-dbPath", str(self.home)]
        # One database for every region and access key: a client with other settings still sees the same tables.
        main = [
            "software.amazon.dynamodb.services.local.main.ServerRunner",
            *storage,
            "-sharedDb",
            "-disableTelemetry",
            "-port",
            str(port),
        ]
        return self.server_command([], main)

    async def answers(self, port: int) -> bool:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(f"http://{HOST}:{port}/", data=b"{}", headers=LIST_TABLES_HEADERS) as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False
