// Command consul is the real HashiCorp Consul, agent and CLI, built from its Go module.
//
// The tests of vaultexec talk to it. It lives in a module of its own so that Consul's dependencies never reach the go.mod of the product.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	mcli "github.com/mitchellh/cli"

	"github.com/hashicorp/consul/command"
	"github.com/hashicorp/consul/command/cli"
)

func main() {
	log.SetOutput(io.Discard) // as Consul's own main does; the agent has a logger of its own
	ui := &cli.BasicUI{BasicUi: mcli.BasicUi{Writer: os.Stdout, ErrorWriter: os.Stderr}}
	c := &mcli.CLI{Name: "consul", Args: os.Args[1:], Commands: command.RegisteredCommands(ui), HelpWriter: os.Stdout, ErrorWriter: os.Stderr}
	code, err := c.Run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "consul: %v\n", err)
		os.Exit(1)
	}
	os.Exit(code)
}
