"""A real Prometheus, set up as WATCHING.md says, scrapes a real run on Ray and answers for each
metric and each panel. Debian: apt-get install prometheus."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from orchestrator.monitoring.grafana import dashboard
from orchestrator.monitoring.metrics import METRICS, STATES
from tests.cluster.runs import Started
from tests.e2e.runs import write_manifest

pytestmark = pytest.mark.prometheus
WATCHING = (Path(__file__).parents[2] / "orchestrator" / "WATCHING.md").read_text()
CONFIG = re.search(r"```yaml\n(# prometheus\.yml.*?)```", WATCHING, re.DOTALL)[1]  # type: ignore[index]
# Discovery, Ray and scraping wait for ten seconds each. Scar: those intervals are timeouts, too;
# cut to two seconds, beside a busy core, nothing was ever scraped.
LIMIT_S = 90.0
RAYS_OWN = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}
T = TypeVar("T")


class Server:
    """Prometheus, asked through its HTTP API."""

    def __init__(self, port: int) -> None:
        self._at = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """An instant query: its series. Raises HTTPError for PromQL that is none."""
        with urlopen(f"{self._at}/query?query={quote(expression)}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]


def until(found: Callable[[], T], process: subprocess.Popen) -> T:
    deadline = time.monotonic() + LIMIT_S
    while not (result := found()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.5)
    return result


def _up(server: Server) -> bool:
    """Whether it has scraped anything."""
    try:
        return bool(server.ask("ray_mtc_step"))
    except URLError:  # it has not begun to listen
        return False


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def run(model, tmp_path_factory) -> Iterator[tuple[Started, Path, str, str]]:
    """A run of two cells and a producer, at work: it, its folder, its token, its dashboard."""
    root, token = tmp_path_factory.mktemp("watched"), secrets.token_hex(32)
    manifest = write_manifest(root, model, tokens=256 * 1_000_000, checkpoint_minutes=0.1)
    options = ("--set", "resources.topology=split", "--set", "resources.producers=1",
               "--set", "resources.cells=2")  # fmt: skip
    started = Started(manifest, root, *options, token=token)
    assert started.process.stdout is not None
    for line in started.process.stdout:
        if address := re.search(r"Ray dashboard: (http://\S+)", line):
            break
    else:
        raise AssertionError(started.process.communicate())
    yield started, root / "small", token, address[1]
    started.send(signal.SIGINT)
    assert started.end().code == 130


@pytest.fixture(scope="module")
def server(run, tmp_path_factory) -> Iterator[Server]:
    program = shutil.which("prometheus")
    assert program, "no Prometheus here: apt-get install prometheus"
    _, _, token, address = run
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    (folder / "token").write_text(token)
    config = CONFIG.replace("http://127.0.0.1:8265", address)
    config = config.replace("/home/me/.ray/auth_token", str(folder / "token"))
    (folder / "prometheus.yml").write_text(config)
    command = [program, f"--config.file={folder / 'prometheus.yml'}",
               f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        found = Server(port)
        try:
            until(lambda: _up(found), process)
            yield found
        except AssertionError:
            raise AssertionError((folder / "log").read_text()) from None
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_it_answers_for_each_metric_with_its_labels(metric, run, server) -> None:
    asked = f'{metric.exported}{{run="small"}}'
    series = until(lambda: server.ask(asked), run[0].process)
    for one in series:
        labels = one["metric"].keys() - {"__name__", "instance", "job"}
        assert labels >= {*metric.labels, *RAYS_OWN}
        assert {x for x in labels - {*metric.labels} if not x.startswith("otel_")} == RAYS_OWN


def test_actors_and_transcoders_are_those_of_the_run(run, server) -> None:
    plan = json.loads((run[1] / "plan.json").read_text())
    names = {actor["name"] for actor in (*plan["cells"], *plan["producers"])}
    assert len(names) == 3 and all("[L0" in name for name in names)
    ids = {transcoder["id"] for transcoder in plan["transcoders"]}

    def labels(name: str, label: str) -> set[str]:
        return {one["metric"][label] for one in server.ask(name)}

    until(lambda: labels("ray_mtc_start", "actor") == names, run[0].process)
    until(lambda: labels("ray_mtc_step", "transcoder") == ids, run[0].process)


def test_figures_are_those_that_were_logged(run, server) -> None:
    """What was logged goes on meanwhile: so a figure is to be one of the last that there were."""
    for one in until(lambda: server.ask("ray_mtc_fvu"), run[0].process):
        path = run[1] / "transcoders" / one["metric"]["transcoder"] / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()[:-1]]
        assert float(one["value"][1]) in {line["fvu"] for line in lines}

    def states() -> dict[str, str]:
        found = server.ask("sum by (state) (ray_mtc_state)")
        return {one["metric"]["state"]: one["value"][1] for one in found}

    expected = {state: "4" if state == "training" else "0" for state in STATES}
    until(lambda: states() == expected, run[0].process)


def test_counters_rise_as_fast_as_the_run_says(run, server) -> None:
    """Ray gives out new values each ten seconds."""

    def rates() -> list[float]:
        found = server.ask("rate(ray_mtc_tokens_total[30s])")
        return [float(one["value"][1]) for one in found]

    until(lambda: len(rates()) == 2 and all(rates()), run[0].process)
    said = json.loads((run[1] / "status.json").read_text())["tokens_per_second"]
    for rate in rates():
        assert 0.2 * said < rate < 3 * said, (rate, said)


def test_every_panel_of_the_dashboard_has_something_to_show(run, server) -> None:
    panels = [panel for panel in dashboard()["panels"] if panel["type"] == "timeseries"]
    for panel in panels:
        expression = panel["targets"][0]["expr"].replace("$__rate_interval", "30s")
        expression = expression.replace("$run", ".*").replace("$transcoder", ".*")
        series = until(lambda asked=expression: server.ask(asked), run[0].process)
        shown = set(re.findall(r"\{\{(\w+)\}\}", panel["targets"][0]["legendFormat"]))
        assert all(shown <= one["metric"].keys() for one in series), panel["title"]
