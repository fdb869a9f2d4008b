// Package wycheproof has no code: its tests put the test vectors of Project Wycheproof through the functions that package security uses. It is a module of
// its own, since they are large.
package wycheproof
