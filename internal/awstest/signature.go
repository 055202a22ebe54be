// Package awstest has stand-ins of what AWS answers with: STS, the metadata service of EC2, the endpoints of ECS and EKS. They refuse
// what the real ones refuse. Signatures are checked by an implementation of this package's own, written after AWS' specification, so
// that no mistake of the signer's is its own judge.
package awstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Key is an access key.
type Key struct {
	ID, Secret, Token string
	ARN, UserID       string // whose it is
	Expires           time.Time
}

// refusal is an error answer of STS.
type refusal struct{ code, text string }

// clockSkew is how far off the time of a request may be.
const clockSkew = 5 * time.Minute

// verify says whose signature a request has. now is the time of the verifier, region and service what it is responsible for.
func verify(r *http.Request, body []byte, find func(id string) (Key, bool), now time.Time, region, service string) (Key, *refusal) {
	incomplete := &refusal{"IncompleteSignature", "the request is not signed as it has to be"}
	fields, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return Key{}, &refusal{"MissingAuthenticationToken", "Request is missing Authentication Token"}
	}
	given := map[string]string{}
	for f := range strings.SplitSeq(fields, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(f), "=")
		given[name] = value
	}
	scope := strings.Split(given["Credential"], "/")
	if len(scope) != 5 || scope[4] != "aws4_request" || scope[3] != service {
		return Key{}, incomplete
	}
	key, ok := find(scope[0])
	if !ok || key.Token != r.Header.Get("X-Amz-Security-Token") {
		return Key{}, &refusal{"InvalidClientTokenId", "The security token included in the request is invalid."}
	}
	if !key.Expires.IsZero() && now.After(key.Expires) {
		return Key{}, &refusal{"ExpiredToken", "The security token included in the request is expired"}
	}
	if scope[2] != region {
		return Key{}, &refusal{"SignatureDoesNotMatch", "Credential should be scoped to a valid region, not '" + scope[2] + "'."}
	}
	date := r.Header.Get("X-Amz-Date")
	at, err := time.Parse("20060102T150405Z", date)
	if err != nil || at.Format("20060102") != scope[1] {
		return Key{}, incomplete
	}
	limit := func(t time.Time) string { return t.UTC().Format("20060102T150405Z") }
	if now.Sub(at) > clockSkew {
		return Key{}, &refusal{"SignatureDoesNotMatch", "Signature expired: " + date + " is now earlier than " + limit(now.Add(-clockSkew)) + " (" + limit(now) + " - 5 min.)"}
	}
	if at.Sub(now) > clockSkew {
		return Key{}, &refusal{"SignatureDoesNotMatch", "Signature not yet current: " + date + " is still later than " + limit(now.Add(clockSkew)) + " (" + limit(now) + " + 5 min.)"}
	}
	signed := strings.Split(given["SignedHeaders"], ";")
	if !slices.IsSorted(signed) || !slices.Contains(signed, "host") {
		return Key{}, incomplete
	}
	for name := range r.Header { // whatever says something to AWS must be signed
		name = strings.ToLower(name)
		if (strings.HasPrefix(name, "x-amz-") || name == "content-type") && !slices.Contains(signed, name) {
			return Key{}, incomplete
		}
	}
	canonical := canonicalRequest(r, body, signed)
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", date, strings.Join(scope[1:], "/"), hash(canonical)}, "\n")
	mac := []byte("AWS4" + key.Secret)
	for _, part := range append(slices.Clone(scope[1:]), toSign) {
		mac = sign(mac, part)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(mac)), []byte(given["Signature"])) {
		return Key{}, &refusal{"SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. The Canonical String for this request should have been '" + canonical + "'"}
	}
	return key, nil
}

// canonicalRequest is the text of a request that a signature is over.
func canonicalRequest(r *http.Request, body []byte, signed []string) string {
	uri := path.Clean("/" + r.URL.Path)
	if strings.HasSuffix(r.URL.Path, "/") && uri != "/" {
		uri += "/"
	}
	query := strings.Split(r.URL.RawQuery, "&")
	slices.Sort(query)
	var headers strings.Builder
	for _, name := range signed {
		values := r.Header.Values(name)
		switch name {
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		for i, v := range values {
			values[i] = strings.Join(strings.Fields(v), " ")
		}
		headers.WriteString(name + ":" + strings.Join(values, ",") + "\n")
	}
	return strings.Join([]string{r.Method, uri, strings.Join(query, "&"), headers.String(), strings.Join(signed, ";"), hash(string(body))}, "\n")
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func sign(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(text))
	return mac.Sum(nil)
}
