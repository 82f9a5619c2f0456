"""Checks a receipt of Expunge with nothing but the `cryptography` package: no service, no network, none of its code.

    python verify_receipt.py RECEIPT.json VKEY [OPENING.json]

VKEY is the log's public key that you kept. OPENING.json is what the caller kept: {"salt", "interactions", "users",
"items"}. Written from docs/receipt-format.md alone; exits 0 and prints the statement, or 1 and names the fault.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

AFTER = {"erasure.accepted": "accepted", "erasure.accepted_again": "accepted", "erasure.forgotten": "forgotten"}
AFTER |= {"erasure.needs_attention": "needs_attention", "erasure.cancelled": "cancelled", "erasure.erased": "erased"}
AFTER |= {"erasure.refused": "refused"}
OUTCOMES = {"erasure.refused": "refused", "erasure.refused_in_part": "partial"}


class Refused(Exception):
    """The name of the fault."""


def need(holds, fault):
    """Refuse by name unless this holds."""
    if not holds:
        raise Refused(fault)


def parse_key(vkey):
    """(name, key id, public key) of `name+hex+base64`."""
    name, key_id, material = vkey.strip().split("+", 2)
    data = base64.b64decode(material, validate=True)
    need(len(data) == 33 and data[0] == 1, "malformed_key")
    need(hashlib.sha256(name.encode() + b"\n" + data).hexdigest()[:8] == key_id, "malformed_key")
    return name, bytes.fromhex(key_id), Ed25519PublicKey.from_public_bytes(data[1:])


def check_signed(text, lines, key):
    """One of the signature lines is of this key and holds; lines of others are passed over."""
    name, key_id, public = key
    signed = False
    for line in lines.removesuffix("\n").split("\n"):
        dash, who, blob = line.split(" ")
        data = base64.b64decode(blob, validate=True)
        need(dash == "\u2014", "malformed_note")
        if (who, data[:4]) == (name, key_id):
            try:
                public.verify(data[4:], text.encode())
            except InvalidSignature:
                raise Refused("wrong_signature") from None
            signed = True
    need(signed, "unknown_key")


def check_inclusion(leaf, index, size, path, root):
    """RFC 9162, section 2.1.3.2."""
    need(0 <= index < size, "wrong_index")
    at, last, found = index, size - 1, leaf
    for sibling in path:
        need(last > 0, "wrong_proof")
        if at & 1 or at == last:
            found = hashlib.sha256(b"\x01" + sibling + found).digest()
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\x01" + found + sibling).digest()
        at, last = at >> 1, last >> 1
    need(last == 0 and found == root, "wrong_proof")


def commitment(opening):
    """SHA-256(salt || canonical JSON of the targets)."""
    pairs = sorted({(pair["user_id"], pair["item_id"]) for pair in opening.get("interactions", [])})
    targets = {
        "interactions": [{"item_id": item, "user_id": user} for user, item in pairs],
        "items": sorted(set(opening.get("items", []))),
        "users": sorted(set(opening.get("users", []))),
    }
    text = json.dumps(targets, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(bytes.fromhex(opening["salt"]) + text.encode()).hexdigest()


def verify(receipt, vkey, opening=None):
    """The statement of a receipt that holds."""
    need(receipt.get("format") == "expunge-receipt/v1", "malformed_receipt")
    key = parse_key(vkey)
    check_signed(receipt["statement"] + "\n", receipt["signature"], key)
    statement = json.loads(receipt["statement"])
    need(statement["format"] == "expunge-receipt/v1" and statement["log"] == key[0], "wrong_signature")

    text, _, lines = receipt["checkpoint"].rpartition("\n\n")
    check_signed(text + "\n", lines, key)
    origin, size, root = text.split("\n")[:3]
    need(origin == key[0], "other_log")

    status, reached, extension, decision, held = None, {}, None, None, False
    entries = receipt["entries"]
    need(statement["entries"] == [each["index"] for each in entries], "missing_entries")
    need(statement["entries"] == sorted(set(statement["entries"])) and entries, "missing_entries")
    for each in entries:
        leaf = hashlib.sha256(b"\x00" + each["entry"].encode()).digest()
        path = [base64.b64decode(one, validate=True) for one in each["hashes"]]
        check_inclusion(leaf, each["index"], int(size), path, base64.b64decode(root, validate=True))
        entry = json.loads(each["entry"])
        need(entry["seq"] == each["index"] + 1, "wrong_index")
        need(entry["erasure_id"] == statement["erasure_id"], "other_erasure")
        after = AFTER.get(entry["event"])
        if after:
            status = after
            if after != "accepted" or after not in reached:
                reached[after] = entry["at"]
        event, ground = entry["event"], entry["body"].get("ground")
        if event == "erasure.extended":
            extension = {"at": entry["at"], "ground": ground, "until": entry["body"]["until"]}
        if event in OUTCOMES:
            decision = {"at": entry["at"], "ground": ground, "outcome": OUTCOMES[event]}
        held = {"erasure.hold_set": True, "erasure.hold_lifted": False}.get(event, held)

    first = json.loads(entries[0]["entry"])
    need(first["event"] == "erasure.accepted", "contradiction")
    for name in ("commitment", "mode", "requested", "matched"):
        need(statement[name] == first["body"][name], "contradiction")
    need(statement["status"] == status and statement["reached"] == reached, "contradiction")
    need(statement.get("extension") == extension and statement.get("decision") == decision, "contradiction")
    need(extension is None or statement["due_at"] == extension["until"], "contradiction")
    need(statement.get("legal_hold", False) is held, "contradiction")
    need(statement["final"] is (status in ("erased", "cancelled", "refused") or decision is not None), "contradiction")
    if opening is not None:
        need(commitment(opening) == statement["commitment"], "wrong_commitment")
    return statement


if __name__ == "__main__":
    documents = [json.loads(Path(name).read_bytes()) for name in (sys.argv[1], *sys.argv[3:4])]
    try:
        print(json.dumps(verify(documents[0], sys.argv[2], *documents[1:]), indent=1))
    except (Refused, ValueError, KeyError, TypeError) as fault:
        sys.exit(f"REFUSED: {fault}")
