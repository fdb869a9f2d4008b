//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package main

import "os"

// lock does nothing: here nobody is kept from writing to the same file.
func lock(*os.File) error { return nil }
