// Package tinkkeys gives package security the keys of Tink keysets. It is a module of its own: Tink links protobuf, which who does not need it need not have.
//
//	master, err := aead.New(handleOfTheMasterKey) // or that of a cloud's KMS
//	keys, err := tinkkeys.Open("billing.tink", master, tinkkeys.FileOptions{})
//	layer := security.Encrypt(security.EncryptOptions{Producer: "orders", Recipients: []security.KMS{keys}})
//
// # Data keys
//
// A KMS wraps data keys with the primary key of a keyset, and unwraps them with that key of it which a message names. An AEAD keyset is a secret that both sides
// have; of a hybrid one publishers have the public keyset, and only who has the private one unwraps. What package security binds a data key to is the associated
// data of the one and the context info of the other. A key's name on the wire is its ID in decimal, which is no secret; the key that is named is used and no other,
// also where its keys have no prefix of Tink's. Wrapped data keys are Tink's own ciphertexts: any Tink with the keyset opens them.
//
// Rotation is Tink's: add a key, everywhere; when all have looked, promote it; disable the old one when its messages are gone, or at once if others may have it.
// A key that is disabled, destroyed or deleted opens nothing any more, also nothing that was opened before.
//
// # Signatures
//
// SigningKeys makes keys of a Keyring out of Ed25519 and P-256 keysets whose signatures are those of this wire format, bit for bit: without a prefix, P-256 with
// SHA-256 in DER.
//
// # What is left out
//
// Keysets whose keys are at a cloud's KMS (KMS AEAD, KMS envelope): Tink's AEAD has no context and does not tell an outage, which pauses a subscription, from
// what will never open, which is given up. Such a KMS is to be a security.KMS itself; as the master key of a file it is welcome. MAC keysets: an HMAC key of Tink's
// may cut its tags. GODEBUG=fips140=only: Tink chooses the nonces of AES-GCM itself, which that forbids; SigningKeys works. Keysets in binary: tinkey convert-keyset writes JSON.
package tinkkeys
