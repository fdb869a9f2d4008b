// Package resident weighs this process.
package resident

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Bytes is the memory of this process that lies in RAM: as the system counts it, or, where that cannot be read, what Go has of the system and has not
// given back, which lacks the memory of other languages only.
func Bytes() int64 { return bytes("/proc/self/statm") }

func bytes(statm string) int64 {
	const pages = 1 // the field
	if text, err := os.ReadFile(statm); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > pages {
			if n, err := strconv.ParseInt(fields[pages], 10, 64); err == nil {
				return n * int64(os.Getpagesize())
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}
