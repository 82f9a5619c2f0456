"""docker-compose.yml and docker/ against the code: commands, ports, variables, paths. `make compose-test` runs them."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from service.app import create_app
from service.cli.program import app as command_line
from service.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
OWN = {name: service for name, service in SERVICES.items() if service["image"].startswith("expunge")}
SECRETS = ("EXPUNGE_SECRET_KEY", "POSTGRES_PASSWORD")


def commands_of(service: dict[str, Any]) -> list[list[str]]:
    """The `expunge` commands that a service runs, without the program's name."""
    if "entrypoint" not in service:
        return [service["command"]]
    script = service["command"][0]
    return [part.split()[1:] for part in script.split("&&")]


def port_in(text: str) -> int:
    """The port of the loopback URL in a health check."""
    found = re.search(r"127\.0\.0\.1:(\d+)", text)
    assert found is not None
    return int(found[1])


def interpolated(value: str) -> str:
    """A value of the compose file with its defaults, and something strong for what has none."""
    value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    return re.sub(r"\$\{\w+:\?[^}]*\}", "x" * 48, value)


def test_the_commands_of_the_containers_exist() -> None:
    """Every command and option that a container is started with is one of the command line's."""
    root: Any = typer.main.get_command(command_line)
    dockerfile_default = re.findall(r'^CMD \["(\w+)"\]$', DOCKERFILE, re.MULTILINE)

    for words in [*(each for service in OWN.values() for each in commands_of(service)), dockerfile_default]:
        command = root
        rest = list(words)
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}

        assert not getattr(command, "commands", None), f"{words} is no command"
        assert {word for word in rest if word.startswith("--")} <= options, f"{words} has options that it does not know"


def test_the_api_is_published_on_the_port_that_it_listens_on() -> None:
    """The API's option, its health check, the published port and the image's agree, and only loopback is published."""
    words = SERVICES["api"]["command"]
    port = int(words[words.index("--port") + 1])
    published = interpolated(SERVICES["api"]["ports"][0])

    assert published == f"127.0.0.1:{port}:{port}"
    assert port_in(SERVICES["api"]["healthcheck"]["test"][-1]) == port
    assert f"EXPOSE {port} {Settings.model_fields['metrics_port'].default}\n" in DOCKERFILE
    assert port_in(DOCKERFILE) == port
    assert words[words.index("--host") + 1] == "0.0.0.0"  # noqa: S104  # inside the container


def test_the_worker_is_asked_on_its_own_port() -> None:
    """The worker's health check asks the port that its settings give."""
    port = Settings.model_fields["metrics_port"].default

    assert port_in(SERVICES["worker"]["healthcheck"]["test"][-1]) == port
    assert "EXPUNGE_METRICS_PORT" not in SERVICES["worker"]["environment"]


def test_health_checks_ask_paths_that_exist(settings: Settings) -> None:
    """What the health checks and Prometheus ask for is a route of the API."""
    paths = set(create_app(settings).openapi()["paths"])

    for text in (DOCKERFILE, *(str(service.get("healthcheck")) for service in OWN.values())):
        assert set(re.findall(r"127\.0\.0\.1:\d+(/\w+)", text)) <= paths
    assert "/metrics" in paths


@pytest.mark.parametrize("name", OWN)
def test_variables_of_a_container_are_settings_that_make_sense(name: str) -> None:
    """Every variable is a setting, and together they load."""
    given = {key: interpolated(value) for key, value in SERVICES[name]["environment"].items()}
    fields = {key.removeprefix("EXPUNGE_").lower(): value for key, value in given.items()}

    assert fields.keys() <= Settings.model_fields.keys()
    load_settings(**fields)


def test_addresses_in_variables_are_services() -> None:
    """Database and stream are looked for where the compose file puts them."""
    environment = OWN["api"]["environment"]
    database = re.search(r"@(\w+):(\d+)/(\w+)$", environment["EXPUNGE_DATABASE_URL"])
    stream = re.search(r"//(\w+):(\d+)/", environment["EXPUNGE_REDIS_URL"])
    assert database is not None
    assert stream is not None

    assert SERVICES[database[1]]["environment"]["POSTGRES_DB"] == database[3]
    assert database[2] == "5432"
    assert "valkey-server" in SERVICES[stream[1]]["command"]
    assert stream[2] == "6379"


def test_the_model_store_is_a_volume_that_all_share() -> None:
    """The folder that the settings give for the store is where the volume is mounted, in every container of ours."""
    store = load_settings(home=OWN["api"]["environment"]["EXPUNGE_HOME"]).store_root

    for name, service in OWN.items():
        assert f"models:{store}" in service["volumes"], name


def test_the_image_owns_the_folders_that_volumes_are_mounted_on() -> None:
    """A volume takes the owner of the folder that it covers: one that the image lacks would be root's."""
    owned = re.search(r"install -d -o expunge (.*)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    assert owned is not None

    for service in OWN.values():
        for volume in service["volumes"]:
            name, folder = volume.split(":")[:2]
            assert name not in COMPOSE["volumes"] or folder in owned[1].split(), folder


def test_secrets_have_no_default_and_are_not_written_down() -> None:
    """compose refuses to begin without each secret, and no file holds one."""
    example = (ROOT / "docker" / "example.env").read_text()

    for secret in SECRETS:
        uses = re.findall(r"\$\{" + secret + r"(.{2})", COMPOSE_TEXT)
        assert uses
        assert set(uses) == {":?"}, f"{secret} must not have a default"
        assert f"\n{secret}=\n" in example


def test_the_example_environment_names_every_variable() -> None:
    """What compose interpolates is what docker/example.env explains, no more and no less."""
    example = (ROOT / "docker" / "example.env").read_text()
    named = set(re.findall(r"^(\w+)=", example, re.MULTILINE))

    assert set(re.findall(r"\$\{(\w+):", COMPOSE_TEXT)) == named


def test_files_that_are_mounted_or_copied_exist() -> None:
    """Each path of the compose file and the Dockerfile is in the project, and goes into the build's context."""
    mounted = [v.split(":")[0] for service in SERVICES.values() for v in service.get("volumes", []) if v[0] == "."]
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    context = (ROOT / ".dockerignore").read_text().splitlines()

    for path in [*mounted, *copied, COMPOSE["x-expunge"]["build"]["dockerfile"]]:
        assert (ROOT / path).exists(), path
    for path in copied:
        assert f"!{path}" in context, f".dockerignore keeps {path} out"


def test_every_container_is_bounded_and_comes_back() -> None:
    """Memory and processes have a bound; what lasts is started again; tags are pinned."""
    for name, service in SERVICES.items():
        lasting = name not in ("migrate", "train")
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["restart"] == "unless-stopped" or not lasting, name
        assert re.search(r":v?\d", service["image"]), f"{name} has no pinned tag"


@pytest.mark.parametrize("name", OWN)
def test_our_containers_have_no_more_rights_than_they_need(name: str) -> None:
    """No root, no capabilities, no writable file system but the volume and /tmp."""
    service = OWN[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)


def test_api_and_worker_wait_for_the_schema_and_their_servers() -> None:
    """Neither begins before the schema is there and database and stream are healthy."""
    for name in ("api", "worker"):
        conditions = {other: each["condition"] for other, each in SERVICES[name]["depends_on"].items()}
        assert conditions == {
            "migrate": "service_completed_successfully",
            "postgres": "service_healthy",
            "valkey": "service_healthy",
        }


def test_the_stream_keeps_its_entries() -> None:
    """The stream server writes a file, and evicts nothing when it is full; the service refuses any other."""
    words = SERVICES["valkey"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"


def test_the_image_installs_what_is_pinned() -> None:
    """The image is made from constraints.txt, torch by its pin, nothing beside it."""
    installs = re.findall(r"pip install (.*)$", DOCKERFILE, re.MULTILINE)

    assert installs
    assert all("-c constraints.txt" in line or "--no-deps" in line for line in installs)
    assert "grep -o '^torch==[^ ;]*' constraints.txt" in DOCKERFILE
