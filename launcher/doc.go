// Package launcher is the life of a run: from references to secrets to an environment to a command.
package launcher
