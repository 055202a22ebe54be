//go:build !linux

package listen

// maxPath is the longest path of a unix socket: sun_path has 104 bytes, one of them the end (unix(4)).
const maxPath = 103
