package listen

// maxPath is the longest path of a unix socket: sun_path has 108 bytes, one of them the end (unix(7)).
const maxPath = 107
