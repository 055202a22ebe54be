//go:build !linux

package trust

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// FolderFlags open a folder as a place to work in.
const FolderFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC

// adminGroup may become root anyway: macOS lets it write /usr/local and /opt/homebrew.
var adminGroup = map[string]int{"darwin": 80}[runtime.GOOS]

func hasACL(string) bool { return false }

func mountedReadOnly(string) bool { return false }

func usersUnmapped() bool { return false }
