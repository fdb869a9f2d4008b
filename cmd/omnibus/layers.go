package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/omnibus-go/omnibus/config"
)

// sameBytes are the layers that leave a message as it travels. Any other changes it, or may: such as compress, and the program's own.
var sameBytes = []string{"breaker", "concurrency", "correlate", "dedup", "log", "poison", "rate-limit", "retry", "timeout"}

// warnOfLayers tells of the layers of the configuration that change what travels, since the command works without them: those of the whole file, and
// with a group those of its subscription. A configuration that cannot be read has none; who needs it for more is told.
func (a *app) warnOfLayers(topic, group, without string) {
	path := a.configPath()
	if path == "" {
		return
	}
	c, err := a.load(path)
	if err != nil {
		return
	}
	layers := slices.Clone(c.File().Middleware)
	for name, s := range c.File().Subscriptions {
		if group != "" && s.Topic == topic && (s.Group == group || s.Group == "" && name == group) {
			layers = append(layers, s.Middleware...)
		}
	}
	var names []string
	for _, l := range layers {
		if !slices.Contains(sameBytes, l.Name) {
			names = append(names, nameOf(l))
		}
	}
	if len(names) > 0 {
		a.out.warn(fmt.Sprintf("%s has layers that may change what travels (%s): %s", path, strings.Join(names, ", "), without))
	}
}

func nameOf(l config.Layer) string {
	if l.Name == "own" {
		return "own: " + l.Own
	}
	return l.Name
}
