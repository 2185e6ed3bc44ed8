"""`python -m infra.grafana`: writes each dashboard beside this file, as Grafana imports or provisions it."""

import argparse
import json
from pathlib import Path

from infra.grafana.dashboards import ALL
from infra.grafana.panels import Dashboard, as_json

FOLDER = Path(__file__).parent


def path_of(dashboard: Dashboard) -> Path:
    return FOLDER / f"{dashboard.uid.removeprefix('clockwork-')}.json"


def text_of(dashboard: Dashboard) -> str:
    return json.dumps(as_json(dashboard), indent=2) + "\n"


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m infra.grafana", description=__doc__).parse_args()
    for each in ALL:
        path_of(each).write_text(text_of(each), encoding="utf-8")
