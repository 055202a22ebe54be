// Command app is the demo's sample web app. It tells the names of the variables that it was given, never a value, and
// knows nothing of Vault: that is the point.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatalf("app: cannot listen: %v", err)
	}
	fmt.Printf("http://%s/\n", l.Addr()) // the first line tells where
	srv := &http.Server{Handler: http.HandlerFunc(names), ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(srv.Serve(l))
}

func names(w http.ResponseWriter, _ *http.Request) {
	var all []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		all = append(all, name)
	}
	slices.Sort(all)
	_, _ = fmt.Fprintln(w, strings.Join(all, "\n"))
}
