package awstest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// IMDS stands in for the metadata service of EC2 with version 1 switched off.
type IMDS struct {
	*httptest.Server
	Role string // of the instance; "" for none

	mu     sync.Mutex
	key    Key
	code   string
	hook   http.HandlerFunc // answers in its place
	tokens map[string]time.Time
	seen   []string
}

// NewIMDS starts one that ends with the test.
func NewIMDS(t testing.TB, role string, key Key) *IMDS {
	s := &IMDS{Role: role, key: key, code: "Success", tokens: map[string]time.Time{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// Set changes what it gives.
func (s *IMDS) Set(key Key, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key, s.code = key, code
}

// Answer lets something else answer in its place; nil for itself.
func (s *IMDS) Answer(hook http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Forget makes every token invalid.
func (s *IMDS) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// Seen are the requests that it was sent, as method and path.
func (s *IMDS) Seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.seen...)
}

// ServeHTTP answers as the metadata service does.
func (s *IMDS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r.Method+" "+r.URL.Path)
	hook := s.hook
	s.mu.Unlock()
	if hook != nil {
		hook(w, r)
		return
	}
	s.Serve(w, r)
}

// Serve is what it answers itself, for a hook that has nothing to say.
func (s *IMDS) Serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/latest/api/token" {
		ttl, err := strconv.Atoi(r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"))
		switch {
		case r.Method != http.MethodPut:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case r.Header.Get("X-Forwarded-For") != "": // a proxy
			w.WriteHeader(http.StatusForbidden)
		case err != nil || ttl < 1 || ttl > 21600:
			w.WriteHeader(http.StatusBadRequest)
		default:
			token := fmt.Sprintf("AQAEmetadata-token-%d==", len(s.seen))
			s.tokens[token] = time.Now().Add(time.Duration(ttl) * time.Second)
			_, _ = io.WriteString(w, token)
		}
		return
	}
	if ends, ok := s.tokens[r.Header.Get("X-aws-ec2-metadata-token")]; !ok || time.Now().After(ends) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/latest/meta-data/iam/security-credentials/")
	switch {
	case r.Method != http.MethodGet || !ok || s.Role == "" || name != "" && name != s.Role:
		w.WriteHeader(http.StatusNotFound)
	case name == "":
		_, _ = io.WriteString(w, s.Role)
	default:
		writeKey(w, s.key, map[string]string{"Code": s.code, "Type": "AWS-HMAC", "Message": "words of " + s.key.Token})
	}
}

// Container stands in for the endpoint of ECS, or the agent of EKS Pod Identity.
type Container struct {
	*httptest.Server

	mu    sync.Mutex
	key   Key
	token string // that has to be shown
	path  string
}

// NewContainer starts one that ends with the test. It answers at one path.
func NewContainer(t testing.TB, path, token string, key Key) *Container {
	s := &Container{path: path, token: token, key: key}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// Set changes what it gives, and to whom.
func (s *Container) Set(token string, key Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.key = token, key
}

// ServeHTTP answers as those endpoints do.
func (s *Container) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(status int, code string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"code": code, "message": "words of " + r.Header.Get("Authorization")})
	}
	switch {
	case r.Method != http.MethodGet || r.URL.RequestURI() != s.path:
		fail(http.StatusNotFound, "InvalidPath")
	case r.Header.Get("Authorization") != s.token:
		fail(http.StatusUnauthorized, "AccessDeniedException")
	default:
		writeKey(w, s.key, map[string]string{"RoleArn": "arn:aws:iam::123456789012:role/" + s.key.UserID})
	}
}

func writeKey(w http.ResponseWriter, k Key, more map[string]string) {
	more["AccessKeyId"], more["SecretAccessKey"], more["Token"] = k.ID, k.Secret, k.Token
	more["Expiration"] = time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(more)
}
