// Command bare is what vaultexec is measured against: the least that a Go program can do to read N secrets from Vault
// and become another program. It knows where everything is, checks nothing and forgives nothing. With BARE_ROLE_ID it
// logs in by AppRole first, and revokes the token at the end as vaultexec does.
//
//	bare N COMMAND [ARG...]
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

var (
	transport = &http.Transport{ForceAttemptHTTP2: true, MaxConnsPerHost: 32, MaxIdleConnsPerHost: 32}
	client    = &http.Client{Transport: transport}
	token     = os.Getenv("VAULT_TOKEN")
)

func main() {
	n, err := strconv.Atoi(os.Args[1])
	must(err)
	if ca := os.Getenv("VAULT_CACERT"); ca != "" {
		pem, err := os.ReadFile(ca)
		must(err)
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	role := os.Getenv("BARE_ROLE_ID")
	if role != "" {
		var login struct {
			Auth struct {
				Token string `json:"client_token"`
			}
		}
		call(http.MethodPut, "auth/approle/login",
			`{"role_id":"`+role+`","secret_id":"`+os.Getenv("BARE_SECRET_ID")+`"}`, &login)
		token = login.Auth.Token
	}
	env := os.Environ()
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	read := func(i int) {
		var answer struct {
			Data struct{ Data map[string]string }
		}
		call(http.MethodGet, "secret/data/app-"+strconv.Itoa(i), "", &answer)
		mu.Lock()
		defer mu.Unlock()
		for k, v := range answer.Data.Data {
			env = append(env, k+"="+v)
		}
	}
	first := 0
	if transport.TLSClientConfig != nil && role == "" && n > 1 { // one handshake, the others share it
		read(0)
		first = 1
	}
	for i := first; i < n; i++ {
		wg.Go(func() { read(i) })
	}
	wg.Wait()
	if role != "" {
		call(http.MethodPut, "auth/token/revoke-self", "", nil)
	}
	path, err := exec.LookPath(os.Args[2])
	must(err)
	must(syscall.Exec(path, os.Args[2:], env))
}

func call(method, path, body string, answer any) {
	req, err := http.NewRequest(method, os.Getenv("VAULT_ADDR")+"/v1/"+path, strings.NewReader(body))
	must(err)
	req.Header.Set("X-Vault-Token", token)
	resp, err := client.Do(req)
	must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(err)
	if resp.StatusCode >= 300 {
		panic(resp.Status)
	}
	if answer != nil {
		must(json.Unmarshal(text, answer))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
