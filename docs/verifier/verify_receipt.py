"""Checks a receipt of Expunge with nothing but the `cryptography` package: no service, no network, none of its code.

    python verify_receipt.py RECEIPT.json VKEY [OPENING.json]

VKEY is the log's public key that you kept, OPENING.json {"salt", "interactions", "users", "items"} of the caller.
"""

import base64
import hashlib
import json
import sys
from functools import partial
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

unbase64 = partial(base64.b64decode, validate=True)
STATES = ("accepted", "needs_attention", "cancelled", "forgotten", "erased", "refused")
AFTER = {f"erasure.{state}": state for state in STATES} | {"erasure.accepted_again": "accepted"}
UNTOLD = {"extension": None, "decision": None, "legal_hold": False}
OUTCOMES = {"erasure.refused": "refused", "erasure.refused_in_part": "partial"}
STORES = "checkpoints columns database_files home model_store process_logs stream stream_files write_ahead_log"


class Refused(Exception):
    """The name of the fault."""


def need(holds, fault):
    """Refuse by name unless this holds."""
    if not holds:
        raise Refused(fault)


def parse_key(vkey):
    """(name, key id, public key) of `name+hex+base64`."""
    name, key_id, material = vkey.strip().split("+", 2)
    data = unbase64(material)
    need(hashlib.sha256(name.encode() + b"\n" + data).hexdigest()[:8] == key_id and data[0] == 1, "malformed_key")
    return name, bytes.fromhex(key_id), Ed25519PublicKey.from_public_bytes(data[1:])


def check_signed(text, lines, key):
    """One of the signature lines is of this key and holds; lines of others are passed over."""
    parts = (line.split(" ") for line in lines.removesuffix("\n").split("\n"))
    own = [blob for *who, blob in parts if (*who, unbase64(blob)[:4]) == ("\u2014", *key[:2])]
    need(own, "unknown_key")
    try:
        [key[2].verify(unbase64(signature)[4:], text.encode()) for signature in own]
    except InvalidSignature:
        raise Refused("wrong_signature") from None


def check_inclusion(entry, index, size, hashes, root, fault="wrong_proof"):
    """RFC 9162, section 2.1.3.2."""
    need(0 <= index < size, "wrong_index" if fault == "wrong_proof" else fault)
    at, last, found = index, size - 1, hashlib.sha256(b"\x00" + entry).digest()
    for sibling in map(unbase64, hashes):
        need(last > 0, fault)
        if at & 1 or at == last:
            found = hashlib.sha256(b"\x01" + sibling + found).digest()
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\x01" + found + sibling).digest()
        at, last = at >> 1, last >> 1
    need(last == 0 and found == root, fault)


def check_evidence(text, entry, statement):
    """Evidence is what the log has the hash of, nothing was found, and every proof of absence holds."""
    about = entry | {"format": "expunge-evidence/v1", "erasure_id": statement["erasure_id"]}
    need(hashlib.sha256(text.encode()).hexdigest() == about.pop("evidence", None), "wrong_evidence")
    body = json.loads(text)
    need(about.items() <= body.items(), "contradiction")
    stores, absence = body["search"]["stores"], body["absence"]
    fine = [each["verdict"] == "GONE" or (each["verdict"] == "NOT_CHECKED" and each["reason"]) for each in stores]
    need(all(fine) and " ".join(sorted(each["store"] for each in stores)) == STORES, "contradiction")
    need(absence["targets"] == statement["requested"], "contradiction")
    shown, unshown = absence["shown"], absence["beyond_bound"] + absence["never_on_record"]
    need(shown + unshown == absence["targets"] and bool(shown) <= len(absence["proofs"]) <= shown, "wrong_absence")
    for each in absence["proofs"]:
        low, high, digest = (unbase64(each[name]) for name in ("low", "high", "list_hash"))
        partners = unbase64(each["list"] or "")
        parts = [partners[at : at + 16] for at in range(0, len(partners), 16)]
        listed = parts == sorted(set(parts)) and hashlib.sha256(partners).digest() == digest
        need(len(low) == len(high) == 32 and low < high and (listed or each["list"] is None), "wrong_absence")
        tree, leaf = body["commitment"][each["tree"]], low + high + digest
        check_inclusion(leaf, each["index"], tree["size"], each["hashes"], bytes.fromhex(tree["root"]), "wrong_absence")


def commitment(opening):
    """SHA-256(salt || canonical JSON of the targets)."""
    pairs = sorted({(pair["user_id"], pair["item_id"]) for pair in opening.get("interactions", [])})
    targets = {name: sorted(set(opening.get(name, []))) for name in ("items", "users")}
    targets["interactions"] = [{"item_id": item, "user_id": user} for user, item in pairs]
    text = json.dumps(targets, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(bytes.fromhex(opening["salt"]) + text.encode()).hexdigest()


def verify(receipt, vkey, opening=None):
    """The statement of a receipt that holds."""
    key = parse_key(vkey)
    check_signed(receipt["statement"] + "\n", receipt["signature"], key)
    statement = json.loads(receipt["statement"])
    need(statement["log"] == key[0], "wrong_signature")
    need(receipt["format"] == statement["format"] == "expunge-receipt/v1", "malformed_receipt")
    text, _, lines = receipt["checkpoint"].rpartition("\n\n")
    check_signed(text + "\n", lines, key)
    origin, size, root = text.split("\n")[:3]
    need(origin == key[0], "other_log")
    told, erased = UNTOLD | {"reached": {}}, None
    entries, indices = receipt["entries"], [each["index"] for each in receipt["entries"]]
    need(statement["entries"] == indices == sorted(set(indices)) and entries, "missing_entries")
    for each in entries:
        check_inclusion(each["entry"].encode(), each["index"], int(size), each["hashes"], unbase64(root))
        entry = json.loads(each["entry"])
        event, at, body = entry["event"], entry["at"], entry["body"]
        need(entry["seq"] == each["index"] + 1, "wrong_index")
        need(entry["erasure_id"] == statement["erasure_id"], "other_erasure")
        if event in AFTER:
            told["status"] = after = AFTER[event]
            told["reached"][after] = told["reached"].get("accepted", at) if after == "accepted" else at
            erased = body if after == "erased" else None
        if event == "erasure.extended":
            told["extension"] = {"at": at, "ground": body.get("ground"), "until": body["until"]}
            told["due_at"] = body["until"]
        if event in OUTCOMES:
            told["decision"] = {"at": at, "ground": body.get("ground"), "outcome": OUTCOMES[event]}
        told["legal_hold"] = {"erasure.hold_set": True, "erasure.hold_lifted": False}.get(event, told["legal_hold"])
    first = json.loads(entries[0]["entry"])
    told |= {name: first["body"].get(name) for name in ("commitment", "mode", "requested", "matched")}
    told["final"] = told["status"] in ("erased", "cancelled", "refused") or told["decision"] is not None
    agrees = told.items() <= (UNTOLD | statement).items() and first["event"] == "erasure.accepted"
    need(agrees and statement["out_of_scope"], "contradiction")
    need((erased is None) == ("evidence" not in receipt), "wrong_evidence")
    if erased is not None:
        check_evidence(receipt["evidence"], erased, statement)
    need(opening is None or commitment(opening) == statement["commitment"], "wrong_commitment")
    return statement


if __name__ == "__main__":
    try:
        given, *opening = (json.loads(Path(name).read_bytes()) for name in (sys.argv[1], *sys.argv[3:4]))
        print(json.dumps(verify(given, sys.argv[2], *opening), indent=1))
    except (Refused, ValueError, KeyError, TypeError) as fault:
        sys.exit(f"REFUSED: {fault}")
