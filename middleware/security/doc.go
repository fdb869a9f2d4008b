// Package security signs and encrypts messages, and lets services publish and consume only what they may: what arrives is what its producer has sent, to
// this topic, unread on its way, on every broker, through retries and dead letters.
//
//	keys, err := security.OpenKeyring("orders.keys", security.KeyringOptions{}) // of `omnibus keys new`
//	use := []pubsub.Middleware{
//		security.Sign(security.SignOptions{Keys: keys, Producer: "orders"}),
//		security.Encrypt(security.EncryptOptions{Producer: "orders", Recipients: []security.KMS{keys.KMS("billing")}}),
//	}
//
// # Layers
//
// Listed from the wire inwards; each names those that must stand before it:
//
//	Sign       signs what is published, verifies what is received; needs no network
//	Access     who may publish and consume what
//	Replay     what was handled is not handled again, though somebody sends it again
//	Encrypt    encrypts payloads with data keys that a KMS or a Keyring wraps
//	...        those of package middleware
//
// What cannot be verified or decrypted goes to the dead letters at once, as it came, with a Refusal that tells its sender nothing. A KMS that does not answer
// pauses the subscription: nothing is acked, counted, given up or handled until it does, and nothing is published in plain text.
//
// # Keys
//
// A Keyring has the keys of one environment: give each its own, or a message of one is accepted in the other. Processes look at changed files at different moments,
// so keys change in an order in which each message is of a key that everybody accepts who may get it, whoever has looked already; without a restart and without a
// lost message:
//
//  1. The new key is added as Passive, everywhere, to the keyrings of those who verify or unwrap first. It is accepted, and nobody uses it yet.
//  2. Wait until every process has looked at its keyring again: twice the longest KeyringOptions.Poll.
//  3. It becomes Active where it signs or wraps, and the old one Passive. Here no order is needed: both are accepted by all.
//  4. The old key stays Passive as long as its messages lie in topics, retries and dead letters. Then it is deleted, where it is accepted last.
//
// A key that others may have is made Revoked at once, everywhere, where it is accepted first: nothing that it has signed is accepted any more, whatever it says when
// that was; nor is what it has wrapped decrypted. An owner without an active key publishes nothing: its next one comes by the same four steps, before that where
// there is time.
//
// # Wire format
//
// Two headers, legal as names of CloudEvents extensions, in base64url without padding, each there once: omnisig, at most 4 KiB, and omnienc, at most 16 KiB.
// lp8, lp16 and lp32 are a length of 1, 2 or 4 bytes, big-endian, and so many bytes; opt is 00, or 01 and lp32; PAE is the pre-authentication encoding of DSSE v1.
//
//	P = 01 ‖ lp8(suite) ‖ lp8(kid) ‖ lp8(producer) ‖ lp8(dst) ‖ i64 iat_ms ‖ i64 exp_ms (0 = none) ‖ u8 n ‖ n × lp8(name)
//	    names: strictly ascending, without A to Z, none of omnisig and omnienc, none that begins with omnibus-
//	M = opt(id) opt(type) opt(source) opt(subject) opt(time) opt(contenttype) opt(dataschema) opt(key)
//	    ‖ n × opt(value) ‖ opt(omnienc as it stands) ‖ (00 | 01 ‖ u64 length ‖ SHA-256(payload on the wire))        00 = no payload
//	signature = Sign(PAE("application/vnd.omnibus.sig.v1", lp32(P) ‖ M))
//	omnisig   = b64u(P) "." b64u(signature) ["~" another, at most 4 in all]
//
//	omnienc = b64u("OMN" 01 ‖ suite(1) ‖ dekid(16) ‖ commit(32) ‖ u8 recipients ‖ each: lp8(provider) lp8(kekid) lp16(wrapped))
//	payload = nonce(12) ‖ ciphertext ‖ tag(16)
//	AAD     = PAE("application/vnd.omnibus.aead.v1", suite ‖ dekid ‖ commit ‖ lp8(producer) ‖ lp8(dst) ‖ opt(id) ‖ opt(type)
//	          ‖ opt(contenttype) ‖ opt(contentencoding))
//	prk     = HKDF-Extract-SHA256(dek, salt = dekid); key = Expand(prk, "omnibus/v1/aes256gcm/key", 32)
//	commit  = Expand(prk, "omnibus/v1/aes256gcm/commit", 32)
//	wrap context = PAE("application/vnd.omnibus.wrap.v1", suite ‖ dekid ‖ commit ‖ lp8(producer) ‖ lp8(dst))
//
// dst is the topic as services call it. A text field that is empty is not there; a payload that is nil is not there, one that is empty is. time is RFC 3339 in
// UTC, without zeros at the end of its fraction. Signatures of p256 are DER, its public keys uncompressed points. The suite of a cipher is 01, aes256gcm. A payload that is
// not there is not encrypted.
package security
