// Package primitive is what package security asks of the standard library's cryptography, and nothing else of it: signatures, message authentication, the
// cipher of payloads and wrapped keys, and the derivation of keys. Test vectors of others go through these functions.
package primitive
