"""Notes, keys, checkpoints and proofs in their text forms; what is wrong with them is refused by name."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlog_scales import signing, tlog

from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.errors import Unverified
from service.audit.tlog.merkle import leaf_hash
from service.audit.tlog.note import KeyKind, SignedNote, SigningKey, VerifierKey, signatures_of
from service.audit.tlog.proof import LogProof
from service.audit.tlog.tiles import bundle, parse_tile_path, tile_path

KEY = SigningKey("example.com/log", b"k" * 32)
WITNESS = SigningKey("witness.example/w", b"w" * 32, KeyKind.COSIGNATURE)
HEAD = LogCheckpoint("example.com/log", 1, leaf_hash(b"entry"))

# The example of the specification (C2SP signed-note).
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


def signed_head() -> str:
    """A checkpoint with the log's signature and a witness's."""
    text = HEAD.text()
    return str(SignedNote(text).signed(KEY.sign(text), WITNESS.cosign(text, 1_700_000_000)))


def code_of(refused: pytest.ExceptionInfo[Unverified]) -> str:
    """The name of the fault."""
    return refused.value.code


def test_the_example_of_the_specification_verifies():
    """And is written as it was read."""
    key = VerifierKey.parse(VKEY)
    note = SignedNote.parse(NOTE)

    assert note.verify([key]) == [key]
    assert note.text == "This is an example message.\n"
    assert str(note) == NOTE
    assert str(key) == VKEY


def otherwise(text: str, end: str) -> str:
    """A text in which the letter before this end stands for the same bytes, and other bits behind them."""
    at = text.index(end) - 1
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return text[:at] + letters[letters.index(text[at]) | 1] + text[at + 1 :]


@pytest.mark.P7
def test_a_checkpoint_verifies_with_a_verifier_that_nobody_here_wrote():
    """The log's signature and the witness's."""
    theirs = tlog.Checkpoint.from_text(signed_head())

    theirs.verify(signing.Vkey.from_string(str(KEY.verifier)))
    theirs.verify(signing.Vkey.from_string(str(WITNESS.verifier)))
    assert (theirs.origin, theirs.size, theirs.root_hash) == (HEAD.origin, HEAD.size, HEAD.root)


def test_a_checkpoint_of_another_implementation_verifies_here():
    """The other way round."""
    signer = signing.PlainEd25519Signer("example.com/log", b"k" * 32)
    theirs = tlog.Checkpoint.make_signed("example.com/log", 7, b"r" * 32, [signer])

    assert LogCheckpoint.verified(theirs.serialize(), [KEY.verifier]) == LogCheckpoint("example.com/log", 7, b"r" * 32)


def test_who_signed_is_told():
    """Of the keys that were asked for."""
    note = SignedNote.parse(signed_head())

    assert note.verify([WITNESS.verifier, KEY.verifier]) == [KEY.verifier, WITNESS.verifier]
    assert note.verify([WITNESS.verifier]) == [WITNESS.verifier]


@pytest.mark.P7
@pytest.mark.parametrize(
    ("note", "code"),
    [
        (signed_head().replace("\n1\n", "\n2\n"), "wrong_signature"),
        (signed_head().replace("example.com/log\n1", "example.org/log\n1"), "wrong_signature"),
        (signed_head().replace("\u2014 example.com", "\u2014 example.org"), "unknown_key"),
        (signed_head()[:-1], "malformed_note"),
        (signed_head().replace("\n\n", "\n"), "malformed_note"),
        (signed_head().replace("\u2014", "-"), "malformed_note"),
        (HEAD.text() + "\n\u2014 example.com/log AAAA\n", "malformed_note"),
        (HEAD.text() + "\n\u2014 example.com/log ????\n", "malformed_note"),
        (HEAD.text() + "\n" + "\u2014 a AAAAAAAA\n" * 65, "malformed_note"),
        (signed_head() + "\x00", "malformed_note"),
        ("x" * (1 << 21), "malformed_note"),
        ("", "malformed_note"),
    ],
)
def test_a_note_that_does_not_hold_is_refused_by_name(note: str, code: str):
    """Changed, of another, or no note at all."""
    with pytest.raises(Unverified) as refused:
        SignedNote.parse(note).verify([KEY.verifier])
    assert code_of(refused) == code


@pytest.mark.P7
def test_a_cosignature_covers_its_time():
    """A witness's time cannot be changed afterwards."""
    earlier, later = (WITNESS.cosign(HEAD.text(), seconds) for seconds in (1, 2))
    forged = type(earlier)(earlier.name, earlier.key_id, later.payload[:8] + earlier.payload[8:])

    WITNESS.verifier.check(HEAD.text(), earlier)
    with pytest.raises(Unverified):
        WITNESS.verifier.check(HEAD.text(), forged)


@pytest.mark.P7
def test_a_key_does_not_serve_as_one_of_another_kind():
    """A log's signature is no cosignature, even of the same secret."""
    same = SigningKey("witness.example/w", b"w" * 32)
    note = SignedNote(HEAD.text()).signed(same.sign(HEAD.text()))

    with pytest.raises(Unverified) as refused:
        note.verify([WITNESS.verifier])
    assert code_of(refused) == "unknown_key"


@pytest.mark.parametrize(
    "text", ["", "a+b", f"{VKEY}x", VKEY.replace("530d903a", "530d903b"), "a b+00000000+AQ==", VKEY.replace("Ae", "Be")]
)
def test_a_key_with_a_wrong_letter_is_refused(text: str):
    """Its id tells."""
    with pytest.raises(Unverified) as refused:
        VerifierKey.parse(text)
    assert code_of(refused) == "malformed_key"


def test_a_secret_key_reads_as_it_was_written():
    """And a wrong letter in it is found."""
    text = KEY.secret_text()

    assert SigningKey.parse(text + "\n").verifier == KEY.verifier
    for wrong in (text[1:], text.replace("log+", "lug+"), text + "A", "PRIVATE+KEY+a"):
        with pytest.raises(ValueError, match="signing key"):
            SigningKey.parse(wrong)


@pytest.mark.parametrize(
    "text",
    ["", "a\n1\n", "a\n01\nAAAA\n", "a\n1\nAAAA\n", "a\n-1\nAAAA\n", "\n1\nAAAA\n", "a\n1\n????\n", "a\n1\nAAAA"],
)
def test_what_is_no_checkpoint_is_refused(text: str):
    """Lines missing, numbers that are none, roots of another length."""
    with pytest.raises(Unverified) as refused:
        LogCheckpoint.parse(text)
    assert code_of(refused) == "malformed_checkpoint"


def test_a_checkpoint_of_another_log_is_refused():
    """By its name, where one is asked for."""
    with pytest.raises(Unverified) as refused:
        LogCheckpoint.verified(signed_head(), [KEY.verifier], origin="example.com/other")
    assert code_of(refused) == "other_log"


def test_proofs_are_read_as_they_are_written():
    """With and without what is not proven."""
    for extra in (None, b"", b"opaque"):
        proof = LogProof(0, (), signed_head(), extra)
        assert LogProof.parse(str(proof)) == proof
    assert LogProof.parse(str(LogProof(0, (), signed_head()))).verify(b"entry", [KEY.verifier]) == HEAD


@pytest.mark.P7
@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("index 0", "index 1", "wrong_index"),
        ("index 0", "index 00", "malformed_proof"),
        ("index 0\n", "", "malformed_proof"),
        ("@v1", "@v2", "malformed_proof"),
        ("index 0\n", "index 0\nAAAA\n", "malformed_proof"),
        ("index 0\n", "index 0\n" + "A" * 43 + "=\n", "wrong_proof"),
    ],
)
def test_a_proof_that_does_not_hold_is_refused_by_name(old: str, new: str, code: str):
    """Whatever was changed in it."""
    text = str(LogProof(0, (), signed_head())).replace(old, new, 1)
    with pytest.raises(Unverified) as refused:
        LogProof.parse(text).verify(b"entry", [KEY.verifier])
    assert code_of(refused) == code


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (HEAD.text().replace("=\n", "==\n"), LogCheckpoint.parse),
        (otherwise(HEAD.text(), "=\n"), LogCheckpoint.parse),
        (HEAD.text() + "\n\u2014 example.com/log AAAAAAAA=\n", SignedNote.parse),
        (HEAD.text() + "\n\u2014 example.com/log AAAAAAAAAB==\n", SignedNote.parse),
        (str(LogProof(0, (bytes(32),), signed_head())).replace("AAA=\n", "AAB=\n"), LogProof.parse),
        (str(KEY.verifier) + "=", VerifierKey.parse),
    ],
)
def test_bytes_have_one_text(text: str, read: Callable[[str], object]):
    """Base64 with padding too much, or with bits behind the last byte, would be a second text of the same proof."""
    with pytest.raises(Unverified) as refused:
        read(text)
    assert code_of(refused).startswith("malformed_")


@given(st.one_of(st.text(max_size=300), st.text("\u2014 ab+/=\n01", max_size=200)))
def test_whatever_is_read_either_holds_or_is_refused(text: str):
    """No other error escapes from the parsers."""
    for parse in (SignedNote.parse, LogProof.parse, LogCheckpoint.parse, VerifierKey.parse, signatures_of):
        with suppress(Unverified):
            parse(text)  # type: ignore[operator]


@given(st.integers(min_value=0, max_value=10**17), st.integers(min_value=1, max_value=256))
def test_names_of_tiles_are_read_as_they_are_written(index: int, width: int):
    """Groups of three digits, all but the last with an x."""
    assert parse_tile_path(tile_path(index, width)) == (index, width)


def test_names_of_tiles():
    """The examples of the specification, and what is no name."""
    assert tile_path(1_234_067) == "x001/x234/067"
    assert tile_path(0, 5) == "000.p/5"
    for name in ("", "0", "1/2", "x001", "001/x002", "x000/001", "000.p/0", "000.p/256", "000.p/007", "../000"):
        assert parse_tile_path(name) is None


def test_bundles_hold_entries_with_their_lengths():
    """Two bytes, big-endian."""
    assert bundle([b"ab", b""]) == b"\x00\x02ab\x00\x00"
    with pytest.raises(ValueError, match="65,536"):
        bundle([b"x" * 65_536])
