from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, load_settings


def test_everything_has_a_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Without any variable the service has a home, a database and no Redis of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))

    settings = load_settings()

    assert settings.home == tmp_path / ".expunge"
    assert settings.sql_url.database == f"{tmp_path}/.expunge/expunge.db"
    assert settings.redis_url is None


def test_a_variable_of_the_environment_sets_its_setting(monkeypatch: pytest.MonkeyPatch):
    """EXPUNGE_<NAME> is read, and becomes the right type."""
    monkeypatch.setenv("EXPUNGE_BATCH_MAX", "7")

    assert load_settings().batch_max == 7


def test_what_is_given_outranks_the_environment(monkeypatch: pytest.MonkeyPatch):
    """A command line option wins over its variable; an option left out does not."""
    monkeypatch.setenv("EXPUNGE_PORT", "9000")
    monkeypatch.setenv("EXPUNGE_HOST", "10.0.0.1")

    settings = load_settings(port=1234, host=None)

    assert (settings.port, settings.host) == (1234, "10.0.0.1")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SWEEP_SECONDS", "0", "EXPUNGE_SWEEP_SECONDS must be greater than 0."),
        ("LEASE_SECONDS", "-1", "EXPUNGE_LEASE_SECONDS must be greater than 0."),
        ("DUE_DAYS", "45", "EXPUNGE_DUE_DAYS must be less than or equal to 31."),
        ("BATCH_MAX", "0", "EXPUNGE_BATCH_MAX must be greater than 0."),
        ("ID_MAX_LENGTH", "513", "EXPUNGE_ID_MAX_LENGTH must be less than or equal to 512."),
        ("PORT", "http", "EXPUNGE_PORT must be a valid integer, unable to parse string as an integer."),
        ("LOG_LEVEL", "loud", "EXPUNGE_LOG_LEVEL must be 'debug', 'info', 'warning' or 'error'."),
        ("DATABASE_URL", "mysql://x", "EXPUNGE_DATABASE_URL must begin with sqlite:/// or postgresql://."),
        ("REDIS_URL", "localhost", "EXPUNGE_REDIS_URL must begin with redis://, rediss:// or unix://."),
        ("SECRET_KEY", "changethis", "EXPUNGE_SECRET_KEY must have at least 32 characters."),
    ],
)
def test_nonsense_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str):
    """The sentence names the variable and what it should be."""
    monkeypatch.setenv(f"EXPUNGE_{name}", value)

    with pytest.raises(SettingsError) as refusal:
        load_settings()

    assert str(refusal.value) == sentence


def test_a_window_longer_than_the_lease_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Two settings that make no sense together are named together."""
    monkeypatch.setenv("EXPUNGE_BATCH_WINDOW_MS", "20000")

    with pytest.raises(SettingsError, match=r"EXPUNGE_BATCH_WINDOW_MS .* EXPUNGE_LEASE_SECONDS"):
        load_settings()


def test_a_refused_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch):
    """The sentence may end in a log."""
    monkeypatch.setenv("EXPUNGE_SECRET_KEY", "hunter2")

    with pytest.raises(SettingsError) as refusal:
        load_settings()

    assert "hunter2" not in repr(refusal.value) + str(refusal.value.__context__)


def test_a_secret_is_not_shown_with_the_settings():
    """Printing the settings hides the key."""
    secret = "s" * 40

    assert secret not in repr(load_settings(secret_key=secret))


def test_a_plain_postgresql_url_gets_the_driver():
    """`postgresql://` is what people have; psycopg is what is installed."""
    assert load_settings(database_url="postgresql://u@h/d").sql_url.drivername == "postgresql+psycopg"


def test_every_setting_has_a_default_that_is_valid():
    """The defaults pass the limits that they are under."""
    defaults = load_settings().model_dump(exclude_none=True)

    assert Settings(**defaults) == load_settings()
