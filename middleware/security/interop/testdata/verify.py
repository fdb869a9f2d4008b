"""Verifies and decrypts messages of version 1 of omnibus' wire format: the standard library, and `cryptography` for what it lacks.

Reads an object with "keys" (a keyring file) and "vectors" (messages) in JSON from the standard input, and writes a list with an object for each
message: {"refused": why} or {"headers": [...], "payload": base64 or null, "producer": who}.
"""

import base64
import hashlib
import hmac
import json
import re
import struct
import sys

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

UNSIGNED, MALFORMED = "not signed", "malformed signature or encryption header"
UNKNOWN, FORGED = "unknown or revoked key", "signature does not fit"
PRODUCER, DESTINATION = "key of another producer", "signed for another destination"
PLAIN, CLOSED = "not encrypted", "cannot be decrypted"
TEXT = 0


class Refused(Exception):
    pass


def refuse_unless(good, why):
    if not good:
        raise Refused(why)


def unbase64(text):
    refuse_unless(re.fullmatch(r"[A-Za-z0-9_-]*", text) and len(text) % 4 != 1, MALFORMED)
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    refuse_unless(base64.urlsafe_b64encode(raw).decode().rstrip("=") == text, MALFORMED)
    return raw


def lp(size, raw):
    return len(raw).to_bytes(size, "big") + raw


def opt(raw):
    return b"\0" if raw is None else b"\1" + lp(4, raw)


def text(value):
    return opt(value.encode() if value else None)


def pae(kind, body):
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


class Reader:
    def __init__(self, raw):
        self.raw = raw

    def take(self, n):
        refuse_unless(n <= len(self.raw), MALFORMED)
        head, self.raw = self.raw[:n], self.raw[n:]
        return head

    def number(self, size, signed=False):
        return int.from_bytes(self.take(size), "big", signed=signed)

    def lp(self, size):
        return self.take(self.number(size))

    def end(self):
        refuse_unless(not self.raw, MALFORMED)


def preamble(raw):
    r = Reader(raw)
    refuse_unless(r.number(1) == 1, MALFORMED)
    p = {name: r.lp(1) for name in ("suite", "kid", "producer", "dst")}
    p["iat"], p["exp"] = r.number(8, True), r.number(8, True)
    p["names"] = [r.lp(1) for _ in range(r.number(1))]
    r.end()
    names = p["names"]
    refuse_unless(names == sorted(set(names)) and p["iat"] > 0 and p["exp"] >= 0, MALFORMED)
    for name in names:
        refuse_unless(name == name.lower() and name not in (b"omnisig", b"omnienc") and not name.startswith(b"omnibus-"), MALFORMED)
    return p


def known(keys, kid):
    return keys.get(kid.decode(errors="replace"))


def header(message, name, why):
    found = [h for h in message["headers"] or [] if h["Name"].encode() == name]
    refuse_unless(len(found) <= 1 and all(h["Kind"] == TEXT for h in found), why)
    return found[0]["Value"].encode() if found else None


def signed(raw, names, m):
    body = lp(4, raw) + text(m["id"]) + text(m["type"])
    body += opt(header(m, b"source", FORGED)) + opt(header(m, b"subject", FORGED))
    body += text(m["time"]) + text(m["content_type"]) + opt(header(m, b"dataschema", FORGED)) + text(m["key"])
    for name in names:
        body += opt(header(m, name, FORGED))
    body += opt(header(m, b"omnienc", FORGED))
    if m["payload"] is None:
        body += b"\0"
    else:
        body += b"\1" + struct.pack(">Q", len(m["payload"])) + hashlib.sha256(m["payload"]).digest()
    return pae(b"application/vnd.omnibus.sig.v1", body)


def fits(key, message, signature):
    if key["suite"] == "hmac-sha256":
        return hmac.compare_digest(hmac.new(unbase64(key["private"]), message, "sha256").digest(), signature)
    public = unbase64(key["public"])
    try:
        if key["suite"] == "ed25519":
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        else:
            curve = ec.SECP256R1()
            ec.EllipticCurvePublicKey.from_encoded_point(curve, public).verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def verify(keys, topic, m):
    own = [h for h in m["headers"] or [] if h["Name"].lower() in ("omnisig", "omnienc")]
    for name, limit in (("omnisig", 4096), ("omnienc", 16384)):
        found = [h for h in own if h["Name"].lower() == name]
        refuse_unless(len(found) <= 1, MALFORMED)
        refuse_unless(all(h["Name"] == name and h["Kind"] == TEXT and len(h["Value"]) <= limit for h in found), MALFORMED)
    signature = header(m, b"omnisig", MALFORMED)
    refuse_unless(signature is not None, UNSIGNED)
    entries = signature.decode().split("~")
    refuse_unless(len(entries) <= 4, MALFORMED)
    chosen = None
    for entry in entries:
        front, _, back = entry.partition(".")
        raw, sig = unbase64(front), unbase64(back)
        refuse_unless(sig, MALFORMED)
        p = preamble(raw)
        key = known(keys, p["kid"])
        if chosen is None and key and key["status"] != "revoked":
            chosen = key, raw, sig, p
    refuse_unless(chosen, UNKNOWN)
    key, raw, sig, p = chosen
    refuse_unless(p["suite"] == key["suite"].encode() and key["suite"] in ("ed25519", "p256", "hmac-sha256"), UNKNOWN)
    refuse_unless(p["producer"] == key["owner"].encode(), PRODUCER)
    refuse_unless(fits(key, signed(raw, p["names"], m), sig), FORGED)
    refuse_unless(p["dst"] == topic.encode(), DESTINATION)
    shown = set(p["names"]) | {b"source", b"subject", b"dataschema", b"omnienc"}
    m["headers"] = [h for h in m["headers"] if h["Name"].encode() in shown]
    return p


def open_hpke(curve, key, info, wrapped):
    """RFC 9180, base mode, with HKDF-SHA256 and AES-256-GCM."""
    if curve == "x25519":
        kem, size = 0x20, 32
        mine = x25519.X25519PrivateKey.from_private_bytes(key)
        public = mine.public_key().public_bytes_raw()
        encapsulated = wrapped[:size]
        shared = mine.exchange(x25519.X25519PublicKey.from_public_bytes(encapsulated))
    else:
        kem, size = 0x10, 65
        mine = ec.derive_private_key(int.from_bytes(key, "big"), ec.SECP256R1())
        public = mine.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        encapsulated = wrapped[:size]
        shared = mine.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), encapsulated))

    def extract(suite, salt, label, ikm):
        return hmac.new(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256").digest()

    def expand(suite, prk, label, data, length):
        return HKDFExpand(hashes.SHA256(), length, struct.pack(">H", length) + b"HPKE-v1" + suite + label + data).derive(prk)

    of_kem = b"KEM" + struct.pack(">H", kem)
    secret = expand(of_kem, extract(of_kem, b"", b"eae_prk", shared), b"shared_secret", encapsulated + public, 32)
    suite = b"HPKE" + struct.pack(">HHH", kem, 1, 2)
    context = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    prk = extract(suite, secret, b"secret", b"")
    nonce = expand(suite, prk, b"base_nonce", context, 12)
    return AESGCM(expand(suite, prk, b"key", context, 32)).decrypt(nonce, wrapped[size:], b"")


def unwrap(keys, provider, kek, wrapped, binding):
    key = known(keys, kek)
    if provider != b"keyring" or not key or key["status"] == "revoked" or not key.get("private"):
        return None
    try:
        if key["suite"] == "aes256gcm":
            return AESGCM(unbase64(key["private"])).decrypt(wrapped[:12], wrapped[12:], binding)
        if key["suite"].startswith("hpke-"):
            return open_hpke(key["suite"].removeprefix("hpke-"), unbase64(key["private"]), binding, wrapped)
    except (InvalidTag, ValueError):
        pass
    return None


def decrypt(keys, must, p, m):
    encryption = header(m, b"omnienc", MALFORMED)
    if encryption is None:
        refuse_unless(not must or m["payload"] is None, PLAIN)
        return
    refuse_unless(m["payload"] is not None, CLOSED)
    r = Reader(unbase64(encryption.decode()))
    refuse_unless(r.take(5) == b"OMN\1\1", MALFORMED)
    dekid, commit = r.take(16), r.take(32)
    count = r.number(1)
    refuse_unless(1 <= count <= 8, MALFORMED)
    recipients = [(r.lp(1), r.lp(1), r.lp(2)) for _ in range(count)]
    r.end()
    bound = b"\1" + dekid + commit + lp(1, p["producer"]) + lp(1, p["dst"])
    binding = pae(b"application/vnd.omnibus.wrap.v1", bound)
    dek = next(filter(None, (unwrap(keys, *recipient, binding) for recipient in recipients)), None)
    refuse_unless(dek, CLOSED)
    prk = hmac.new(dekid, dek, "sha256").digest()
    expand = lambda info: HKDFExpand(hashes.SHA256(), 32, b"omnibus/v1/aes256gcm/" + info).derive(prk)
    refuse_unless(hmac.compare_digest(expand(b"commit"), commit), CLOSED)
    bound += text(m["id"]) + text(m["type"]) + text(m["content_type"]) + opt(header(m, b"content-encoding", CLOSED))
    sealed = m["payload"]
    try:
        m["payload"] = AESGCM(expand(b"key")).decrypt(sealed[:12], sealed[12:], pae(b"application/vnd.omnibus.aead.v1", bound))
    except (InvalidTag, ValueError):
        raise Refused(CLOSED) from None
    m["headers"] = [h for h in m["headers"] if h["Name"] != "omnienc"]


def judge(keys, vector):
    m = vector["wire"]
    m["payload"] = None if m["payload"] is None else base64.b64decode(m["payload"])
    try:
        p = verify(keys, vector["topic"], m)
        decrypt(keys, vector["encrypted"], p, m)
    except Refused as e:
        return {"refused": str(e)}
    payload = None if m["payload"] is None else base64.b64encode(m["payload"]).decode()
    return {"headers": m["headers"], "payload": payload, "producer": p["producer"].decode()}


def main():
    given = json.load(sys.stdin)
    keys = {key["kid"]: key for key in given["keys"]["keys"]}
    json.dump([judge(keys, vector) for vector in given["vectors"]], sys.stdout)


main()
