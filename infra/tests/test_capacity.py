"""The planning page shows the script's output, and the script's arithmetic is that of the protocol's writes."""

from pathlib import Path

import pytest

from infra import capacity
from infra.capacity import EXAMPLES, Load, Measured, plan, table

PAGE = Path(capacity.__file__).with_name("capacity.md")


def test_the_page_shows_what_the_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    capacity.main([])
    printed = capsys.readouterr().out.strip()
    assert printed == "\n".join(table(EXAMPLES, Measured()))
    assert printed in PAGE.read_text(encoding="utf-8")


def test_a_schedule_of_one_kilobyte_costs_six_write_units_in_two_tables_and_one_in_the_index() -> None:
    of_one = plan(Load(creates_per_s=700, due_per_s=700), Measured())
    assert (of_one.schedules_wcu, of_one.keys_wcu) == (3_000, 4_000), "three and four, and 30 % left over"


def test_a_run_of_one_kilobyte_costs_six_write_units_in_two_tables_and_none_for_keys() -> None:
    # As DynamoDB counted them (`make bench SCENARIO=job-cost`): row 2 and its delete 1; state 2 and entry 1.
    of_one = plan(Load(creates_per_s=0, due_per_s=0, runs_per_s=700), Measured())
    assert (of_one.schedules_wcu, of_one.jobs_wcu, of_one.keys_wcu) == (3_000, 3_000, 0), (
        "three and three, 30 % left over"
    )


def test_a_larger_row_is_paid_for_each_kilobyte_that_it_begins() -> None:
    # 3 KB: row 2 x 3, its delete 3; outcome 3, and the pointer's 2 and the index's 1 stay.
    of_three = plan(Load(creates_per_s=700, due_per_s=700, row_bytes=2_500), Measured())
    assert (of_three.schedules_wcu, of_three.keys_wcu) == (9_000, 6_000)


@pytest.mark.parametrize(
    ("creates_per_s", "due_per_s", "shards"),
    [(0, 16 * 700, 16), (0, 16 * 700 + 1, 32), (16 * 350, 0, 16), (16 * 233, 16 * 233, 16), (16 * 234, 16 * 234, 32)],
)
def test_no_shard_gets_more_than_one_partition_key_takes(creates_per_s: float, due_per_s: float, shards: int) -> None:
    # 1,000 write units a second and 30 % less: 700 deletes, 350 puts in transactions, or 233 of both.
    assert plan(Load(creates_per_s=creates_per_s, due_per_s=due_per_s), Measured()).shards == shards


def test_measured_costs_decide_about_cores_and_nodes() -> None:
    dear = plan(Load(creates_per_s=7_000, due_per_s=7_000), Measured(create_us=400, delivery_us=600))
    assert dear.cores == pytest.approx(10)
    assert dear.nodes == 4, "three of four cores, and one that may be away"
    assert dear.shards >= dear.cores


def test_a_load_of_ones_own_is_planned_in_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    capacity.main(["--due", "1000", "--bytes", "3000", "--delivery-us", "50"])
    assert "| yours | 1,000 | 1,000 | 0 |" in capsys.readouterr().out
    capacity.main(["--runs", "1000"])
    assert "| yours | 0 | 0 | 1,000 |" in capsys.readouterr().out
