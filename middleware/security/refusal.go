package security

// A Refusal says why a message is not let through, no more exactly than its sender may know. It is an error value for errors.Is:
//
//	if errors.Is(err, security.ErrForged) { ... }
type Refusal uint8

const (
	ErrUnsigned         Refusal = iota + 1 // it has no signature
	ErrMalformed                           // its headers of signature or encryption are not what they must be: unreadable, too large, there twice
	ErrUnknownKey                          // none of its keys is one to verify with: not in the keyring, revoked, or of another suite
	ErrForged                              // what is signed is not what came
	ErrWrongProducer                       // the key belongs to another producer
	ErrWrongDestination                    // it was signed for another topic
	ErrExpired                             // it was signed too long ago, or is no longer valid; or it says that it comes from the future
	ErrUncovered                           // the signature does not cover what must be covered
	ErrDenied                              // the access policy does not let its producer publish it, or this service consume it
	ErrUnencrypted                         // it must be encrypted and is not
	ErrUndecryptable                       // it cannot be decrypted with what is here, or is not what was encrypted
)

// Error is the refusal in words.
func (r Refusal) Error() string {
	texts := [...]string{
		"not refused", "not signed", "malformed signature or encryption header", "unknown or revoked key", "signature does not fit", "key of another producer",
		"signed for another destination", "outside of its time", "signature covers too little", "denied by the access policy", "not encrypted", "cannot be decrypted",
	}
	if int(r) >= len(texts) {
		return "unknown refusal"
	}
	return texts[r]
}
