package config

// Gated is what stands before each handler.
var Gated = gated
