//go:build !unix

package bench

import "time"

// cpuTime is unknown where there is no getrusage; the report then has no figure.
func cpuTime() time.Duration { return -1 }
