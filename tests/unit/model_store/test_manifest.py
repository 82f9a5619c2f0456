import json

import pytest

from model_store import Manifest, ManifestDamaged, RequestFacts, SignatureMismatch
from model_store.manifest import FileFacts, TensorFacts
from tests.factories.versions import KEY, facts

OTHER_KEY = b"o" * 32


def page(**changes: object) -> Manifest:
    files = {"embeddings.safetensors": FileFacts(80, "a" * 64, {"users": TensorFacts("F32", (4, 3))})}
    return Manifest("versions", 42, facts(**changes), files)


def read(data: bytes, key: bytes | None = KEY) -> Manifest:
    return Manifest.from_json(data, what="versions/000042/manifest.json", key=key)


def test_a_page_reads_back_as_it_was_written():
    """Nothing is lost or changed between the publisher and the reader."""
    sealed = page().sealed(KEY)

    assert read(sealed.to_json()) == sealed


@pytest.mark.P6
def test_the_same_facts_give_the_same_bytes():
    """Order of insertion does not show in a manifest."""
    one = page(config={"d": 128, "layers": 3}, encoders={"forget": 1, "dislike": 2})
    other = page(config={"layers": 3, "d": 128}, encoders={"dislike": 2, "forget": 1})

    assert one.sealed(KEY).to_json() == other.sealed(KEY).to_json()


@pytest.mark.P6
def test_a_page_names_everything_a_version_is_made_from():
    """Data, base, encoders, requests, code, seed, config: what it takes to make the same bytes again."""
    written = json.loads(page(config={"d": 128}).sealed(KEY).to_json())

    lineage = ("dataset_hash", "parent", "encoders", "requests", "code_version", "seed", "config")
    assert {name: written[name] for name in lineage} == {
        "dataset_hash": "d" * 64,
        "parent": 1,
        "encoders": {"forget": 1},
        "requests": {"count": 2, "digest": RequestFacts.of(["a", "b"]).digest},
        "code_version": "0.1.0",
        "seed": 7,
        "config": {"d": 128},
    }


@pytest.mark.P6
def test_the_digest_of_requests_depends_on_each_id_and_their_order():
    """Two versions with the same digest have forgotten the same erasures in the same order."""
    digests = {RequestFacts.of(ids).digest for ids in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])}

    assert len(digests) == 5


def test_a_page_signed_with_another_key_is_refused():
    """Whoever can write to the store cannot make a version that loads."""
    forged = page().sealed(OTHER_KEY)

    with pytest.raises(SignatureMismatch, match="not signed with this service's key"):
        read(forged.to_json())


def test_an_unsigned_page_is_refused_where_a_key_is_set():
    """Leaving the signature out is no way round it."""
    with pytest.raises(SignatureMismatch):
        read(page().sealed(None).to_json())


def test_without_a_key_the_checksum_still_tells_bit_rot():
    """An offline reader that has no key trusts the signer, not the disk."""
    data = page().sealed(KEY).to_json()

    assert read(data, key=None).number == 42
    with pytest.raises(ManifestDamaged):
        read(data.replace(b'"seed":7', b'"seed":8'), key=None)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: b"[]",
        lambda data: b"null",
        lambda data: b"[" * 100_000,
        lambda data: b"\x80\x04N.",  # a pickle
        lambda data: data + b"\n",
        lambda data: data.replace(b'"format":1', b'"format":2'),
        lambda data: data.replace(b'"seed":7', b'"seed": 7'),
        lambda data: data.replace(b'"seed":7', b'"seed":7,"seed":7'),
        lambda data: data.replace(b'"seed":7', b'"seed":7,"more":1'),
        lambda data: data.replace(b'"number":42', b'"number":-1'),
        lambda data: data.replace(b'"number":42', b'"number":true'),
        lambda data: data.replace(b'"kind":"forgotten"', b'"kind":"pickle"'),
        lambda data: data.replace(b'"seed":7', b'"seed":' + b"7" * 5_000),
    ],
)
def test_a_page_in_any_other_form_is_refused(change):
    """There is one spelling of a manifest; no other is read."""
    data = page().sealed(KEY).to_json()

    with pytest.raises(ManifestDamaged, match="restore the file from a copy"):
        read(change(data))


def test_two_pages_of_the_same_content_differ_in_their_time_alone():
    """A publish repeated after a crash is recognised, whenever it happens."""
    later = facts().created_at.replace(year=2027)

    assert page().same_content(page(created_at=later).sealed(KEY))
    assert not page().same_content(page(seed=8))


def test_a_time_without_a_zone_is_refused():
    """A manifest never leaves open which hour it means."""
    with pytest.raises(ValueError, match="no time zone"):
        facts(created_at=facts().created_at.replace(tzinfo=None))
