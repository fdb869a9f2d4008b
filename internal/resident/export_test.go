package resident

// BytesBy is Bytes, by a file that takes the place of the system's.
var BytesBy = bytes
