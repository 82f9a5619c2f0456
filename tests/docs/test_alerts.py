"""The alert rules against the metrics of the code and the runbook; promtool checks their syntax where it is there."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
PROMETHEUS = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
# A row of the table in docs/reference.md, which another test holds against the code.
METRIC = re.compile(r"^\| `(expunge_\w+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)


def metrics() -> dict[str, set[str]]:
    """Every series that the code exports, with its labels."""
    series: dict[str, set[str]] = {}
    for name, kind, labels in METRIC.findall((ROOT / "docs" / "reference.md").read_text()):
        named = set(re.findall(r"`(\w+)`", labels))
        parts = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        series |= {f"{name}{part}": named | ({"le"} if part == "_bucket" else set()) for part in parts}
    return series


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    """A rule about a metric that nobody exports never fires, and nobody notices."""
    known = metrics()
    used = re.findall(r"(expunge_\w+)(?:\{([^}]*)\})?", rule["expr"])

    for name, selectors in used:
        assert name in known, name
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors))
        assert labels <= known[name], f"{name} has no label {labels - known[name]}"
    assert used or "up{" in rule["expr"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    """Severity, a summary, and a section of the runbook that is there."""
    name = rule["alert"]

    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
    section = re.search(rf"^### {name}\n(.*)$", RUNBOOK, re.MULTILINE)
    assert section is not None
    assert section[1].startswith(f"**{rule['labels']['severity']}.**")


def test_the_runbook_has_no_section_without_an_alert() -> None:
    """What was dropped from the rules is dropped from the runbook."""
    assert set(re.findall(r"^### (Expunge\w+)$", RUNBOOK, re.MULTILINE)) == {rule["alert"] for rule in RULES}


def test_prometheus_scrapes_api_and_worker_where_they_listen() -> None:
    """Jobs, service names and ports are those of the compose file; the rules are where the compose file mounts them."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    jobs = {job["job_name"]: job["dns_sd_configs"][0] for job in PROMETHEUS["scrape_configs"]}

    assert {job: found["names"] for job, found in jobs.items()} == {
        "expunge-api": ["api"],
        "expunge-worker": ["worker"],
    }
    assert {"api", "worker"} <= services.keys()
    assert jobs["expunge-api"]["port"] == Settings.model_fields["port"].default
    assert jobs["expunge-worker"]["port"] == Settings.model_fields["metrics_port"].default
    mounts = dict(volume.split(":")[:2] for volume in services["prometheus"]["volumes"])
    assert mounts["./docker/alerts.yml"] == f"/etc/prometheus/{PROMETHEUS['rule_files'][0]}"
    assert f"--config.file={mounts['./docker/prometheus.yml']}" in services["prometheus"]["command"]


@pytest.mark.parametrize("job", re.findall(r'job="([\w-]+)"', (FOLDER / "alerts.yml").read_text()))
def test_alerts_name_jobs_that_are_scraped(job: str) -> None:
    """A rule about a job of another name would always fire, or never."""
    assert job in {each["job_name"] for each in PROMETHEUS["scrape_configs"]}


@pytest.mark.parametrize("arguments", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_accepts_configuration_and_rules(arguments: tuple[str, ...]) -> None:
    """Prometheus' own tool reads the configuration, and the rules say what alerts_test.yml expects of them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (of the package prometheus) is not here; make compose-test loads the rules for real.")

    done = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
