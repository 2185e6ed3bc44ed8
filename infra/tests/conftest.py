"""The rules of every test, taken from those of the service: no task outlives its test."""

from tests.conftest import _no_task_outlives_its_test, _session_loop

__all__ = ["_no_task_outlives_its_test", "_session_loop"]
