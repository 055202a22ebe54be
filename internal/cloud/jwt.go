package cloud

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// isJWT reports whether s has the form of a signed JWT: three parts in base64url.
func isJWT(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return false
	}
	for _, p := range parts {
		if b, err := base64.RawURLEncoding.DecodeString(p); err != nil || len(b) == 0 {
			return false
		}
	}
	return true
}

// Subject says who a JWT is about, as it says itself: two JWTs with the same subject prove the same. It is "" for what is none.
func Subject(jwt string) string {
	if !isJWT(jwt) {
		return ""
	}
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(jwt, ".")[1])
	var claims struct{ Iss, Sub, Oid, AppID string }
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return strings.Join([]string{claims.Iss, claims.Sub, claims.Oid, claims.AppID}, " ")
}
