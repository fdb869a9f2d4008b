// Package interop has no code: its tests let a program in Python, which was written from the wire format alone, judge the messages of package security.
package interop
