"""The proof of an entry as a COSE Receipt (RFC 9942, RFC9162_SHA256), for verifiers of supply-chain logs."""

import cbor2

from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.note import SignedNote, SigningKey
from service.receipts.document import Receipt

MEDIA_TYPE = "application/cose"
_SIGN1 = 18  # tag of COSE_Sign1
_ALG, _KID, _CLAIMS, _VDS, _VDP = 1, 4, 15, 395, 396
_EDDSA, _RFC9162_SHA256, _INCLUSION = -8, 1, -1
_ISSUER, _SUBJECT = 1, 2


def cose_receipt(receipt: Receipt, key: SigningKey, erasure_id: str) -> bytes:
    """That the log holds the latest entry about an erasure: COSE_Sign1 over the root, which is detached.

    The leaf is the canonical JSON of that entry, `receipt.entries[-1].text`.
    """
    checkpoint = LogCheckpoint.parse(SignedNote.parse(receipt.checkpoint).text)
    last = receipt.entries[-1]
    proof = cbor2.dumps([checkpoint.size, last.index, list(last.hashes)], canonical=True)
    protected = {
        _ALG: _EDDSA,
        _KID: key.verifier.key_id,
        _CLAIMS: {_ISSUER: key.verifier.name, _SUBJECT: f"erasure:{erasure_id}"},
        _VDS: _RFC9162_SHA256,
    }
    header = cbor2.dumps(protected, canonical=True)
    signature = key.sign_bytes(cbor2.dumps(["Signature1", header, b"", checkpoint.root], canonical=True))
    message = [header, {_VDP: {_INCLUSION: [proof]}}, None, signature]
    return cbor2.dumps(cbor2.CBORTag(_SIGN1, message), canonical=True)
