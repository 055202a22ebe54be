package awstest

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// STS stands in for AWS' STS in one region.
type STS struct {
	*httptest.Server
	Region string // that it takes requests for

	mu       sync.Mutex
	keys     map[string]Key
	tokens   map[string]string // web identities → the role that they may assume
	roles    map[string]Role
	offset   time.Duration // of its clock
	requests []Request
	made     int
	broken   int // HTTP status that it answers with; 0 for none
}

// Role may be assumed.
type Role struct {
	By         string // the ARN of who may
	ExternalID string // that has to be given
}

// Request is one that STS was sent.
type Request struct {
	Action, Host, Caller, Refused, ServerID, Session, Duration string
	Path                                                       string
}

// NewSTS starts one that ends with the test.
func NewSTS(t testing.TB, region string) *STS {
	s := &STS{Region: region, keys: map[string]Key{}, tokens: map[string]string{}, roles: map[string]Role{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// Know adds a key.
func (s *STS) Know(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[k.ID] = k
}

// TrustWeb lets a web identity assume a role.
func (s *STS) TrustWeb(token, role string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = role
}

// TrustRole lets a caller assume a role.
func (s *STS) TrustRole(arn string, r Role) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[arn] = r
}

// SetClock sets its clock off by d.
func (s *STS) SetClock(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset = d
}

// Break lets it answer with a status, or no longer.
func (s *STS) Break(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = status
}

// Requests are those that it was sent.
func (s *STS) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request{}, s.requests...)
}

// ServeHTTP answers as STS does: in XML, unless JSON is asked for.
func (s *STS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	form, _ := url.ParseQuery(string(body))
	s.mu.Lock()
	defer s.mu.Unlock()
	note := Request{Action: form.Get("Action"), Host: r.Host, ServerID: r.Header.Get("X-Vault-AWS-IAM-Server-ID"), Path: r.URL.Path,
		Session: form.Get("RoleSessionName"), Duration: form.Get("DurationSeconds")}
	defer func() { s.requests = append(s.requests, note) }()
	inJSON := r.Header.Get("Accept") == "application/json"
	refuse := func(status int, code, text string) {
		note.Refused = code
		if inJSON {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"Error": map[string]string{"Code": code, "Message": text, "Type": "Sender"}, "RequestId": "r"})
			return
		}
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <Error>\n    <Type>Sender</Type>\n    <Code>%s</Code>\n    <Message>%s</Message>\n  </Error>\n  <RequestId>r</RequestId>\n</ErrorResponse>\n", code, escape(text))
	}
	switch {
	case s.broken != 0:
		refuse(s.broken, "ServiceUnavailable", "try again")
		return
	case r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") || form.Get("Version") != "2011-06-15":
		refuse(http.StatusBadRequest, "InvalidAction", "not a request of STS")
		return
	}
	if note.Action == "AssumeRoleWithWebIdentity" { // is not signed
		token, role := form.Get("WebIdentityToken"), form.Get("RoleArn")
		trusted, ok := s.tokens[token]
		switch {
		case !ok:
			refuse(http.StatusBadRequest, "InvalidIdentityToken", "No OpenIDConnect provider found in your account for "+token)
		case trusted == "":
			refuse(http.StatusBadRequest, "ExpiredTokenException", "Token expired: "+token)
		case trusted != role:
			refuse(http.StatusForbidden, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
		default:
			s.give(w, "AssumeRoleWithWebIdentity", role, note.Session)
		}
		return
	}
	key, refused := verify(r, body, func(id string) (Key, bool) {
		k, ok := s.keys[id]
		return k, ok
	}, time.Now().Add(s.offset), s.Region, "sts")
	if refused != nil {
		refuse(http.StatusForbidden, refused.code, refused.text)
		return
	}
	note.Caller = key.ARN
	switch note.Action {
	case "GetCallerIdentity":
		w.Header().Set("Content-Type", "text/xml")
		_, _ = fmt.Fprintf(w, "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult><Arn>%s</Arn><UserId>%s</UserId><Account>%s</Account></GetCallerIdentityResult></GetCallerIdentityResponse>",
			key.ARN, key.UserID, strings.Split(key.ARN, ":")[4])
	case "AssumeRole":
		role, ok := s.roles[form.Get("RoleArn")]
		if !ok || role.By != key.ARN || role.ExternalID != form.Get("ExternalId") {
			refuse(http.StatusForbidden, "AccessDenied", "User: "+key.ARN+" is not authorized to perform: sts:AssumeRole")
			return
		}
		s.give(w, "AssumeRole", form.Get("RoleArn"), note.Session)
	default:
		refuse(http.StatusBadRequest, "InvalidAction", "Could not find operation")
	}
}

// give makes credentials of a role.
func (s *STS) give(w http.ResponseWriter, action, role, session string) {
	s.made++
	account, name, _ := strings.Cut(strings.TrimPrefix(role, "arn:aws:iam::"), ":role/")
	k := Key{ID: fmt.Sprintf("ASIAMADE%08d", s.made), Secret: fmt.Sprintf("made+secret/%028d", s.made), Token: fmt.Sprintf("made//token==%040d", s.made),
		ARN: "arn:aws:sts::" + account + ":assumed-role/" + name + "/" + session, UserID: "AROAEXAMPLE:" + session, Expires: time.Now().Add(15 * time.Minute)}
	s.keys[k.ID] = k
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{action + "Response": map[string]any{action + "Result": map[string]any{
		"Credentials": map[string]any{"AccessKeyId": k.ID, "SecretAccessKey": k.Secret, "SessionToken": k.Token, "Expiration": float64(k.Expires.Unix())},
	}}})
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
