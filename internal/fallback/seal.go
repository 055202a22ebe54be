// Package fallback keeps a last-good copy of secrets in an encrypted file, for a start while Vault is away. It knows how such a file is
// made, opened and judged; what is in it, and when it counts, is for others to say.
package fallback

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// The file: the magic, the version of the format, a salt, a nonce, the length of the header and the header, which is JSON; then the
// payload, encrypted with AES-256-GCM. All that comes before the payload is authenticated with it. The key of the file is derived from
// the operator's key and the salt (HKDF, RFC 5869), so that no two files have the same.
const (
	magic      = "vaultexec last-good copy\n"
	format     = 1
	saltSize   = 32
	nonceSize  = 12
	keySize    = 32
	mostHeader = 1 << 20
	info       = "vaultexec last-good copy, format 1"
)

// Key is the operator's. It refuses to be printed.
type Key struct{ held func() []byte }

// NewKey makes one.
func NewKey() Key {
	k := make([]byte, keySize)
	_, _ = rand.Read(k) // never fails since Go 1.24
	return Key{func() []byte { return k }}
}

// ParseKey reads what Encode wrote.
func ParseKey(text string) (Key, error) {
	k, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
	if err != nil || len(k) != keySize {
		return Key{}, errors.New("it is not 32 bytes in base64")
	}
	return Key{func() []byte { return k }}, nil
}

// Encode is the key as text.
func (k Key) Encode() string { return base64.StdEncoding.EncodeToString(k.held()) }

const hidden = "***"

// String returns "***".
func (Key) String() string { return hidden }

// GoString returns "***".
func (Key) GoString() string { return hidden }

// Format prints "***" for every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// LogValue gives "***".
func (Key) LogValue() slog.Value { return slog.StringValue(hidden) }

// Header is what a file says of itself to everybody. It is authenticated and not encrypted.
type Header struct {
	Address   string         `json:"address"`
	Namespace string         `json:"namespace"`
	Paths     []string       `json:"paths"`    // as they were asked for, sorted
	Versions  map[string]int `json:"versions"` // of KV version 2
	Written   time.Time      `json:"written"`
	Seen      time.Time      `json:"seen"` // the newest time that a run has seen with this file
}

// Age is how old the copy is. A clock that went back makes it no younger than it was once seen to be.
func (h Header) Age(now time.Time) time.Duration {
	if now.Before(h.Seen) {
		now = h.Seen
	}
	return now.Sub(h.Written)
}

// Mismatch says in what the copy belongs to another run; "" when it does not.
func (h Header) Mismatch(address, namespace string, paths []string) string {
	switch {
	case h.Address != address:
		return "it is of another Vault, " + h.Address
	case h.Namespace != namespace:
		return fmt.Sprintf("it is of another namespace, %q", h.Namespace)
	case !slices.Equal(h.Paths, paths):
		return "it is of other paths: " + strings.Join(h.Paths, ", ")
	}
	return ""
}

// Seal makes a file.
func Seal(k Key, h Header, payload []byte) ([]byte, error) {
	head, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if len(head) > mostHeader {
		return nil, errors.New("the names of its paths are too long")
	}
	var b bytes.Buffer
	b.Grow(len(magic) + 2 + saltSize + nonceSize + 4 + len(head) + len(payload) + 16)
	b.WriteString(magic)
	_ = binary.Write(&b, binary.BigEndian, uint16(format))
	random := make([]byte, saltSize+nonceSize)
	_, _ = rand.Read(random)
	b.Write(random)
	_ = binary.Write(&b, binary.BigEndian, uint32(len(head)))
	b.Write(head)
	aead, err := k.cipher(random[:saltSize])
	if err != nil {
		return nil, err
	}
	return aead.Seal(b.Bytes(), random[saltSize:], payload, b.Bytes()), nil
}

// cipher is that of one file.
func (k Key) cipher(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, k.held(), salt, info, keySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Why a file is not used.
var (
	ErrNoCopy  = errors.New("it is no last-good copy")
	ErrFormat  = errors.New("it was written in another format")
	ErrCut     = errors.New("it is cut off")
	ErrChanged = errors.New("the key is not the one that it was written with, or the file was changed")
)

// Open judges a file and decrypts it.
func Open(k Key, file []byte) (Header, []byte, error) {
	h, at, err := parse(file)
	if err != nil {
		return Header{}, nil, err
	}
	salt, nonce := file[at.random:at.random+saltSize], file[at.random+saltSize:at.random+saltSize+nonceSize]
	aead, err := k.cipher(salt)
	if err != nil {
		return Header{}, nil, err
	}
	payload, err := aead.Open(nil, nonce, file[at.payload:], file[:at.payload])
	if err != nil {
		return Header{}, nil, ErrChanged
	}
	return h, payload, nil
}

// places are those of the parts of a file.
type places struct{ random, payload int }

// parse finds the parts of a file. Nothing is authenticated yet.
func parse(file []byte) (h Header, at places, err error) {
	if !strings.HasPrefix(magic, string(file[:min(len(file), len(magic))])) {
		return h, at, ErrNoCopy
	}
	at.random = len(magic) + 2
	head := at.random + saltSize + nonceSize + 4
	switch {
	case len(file) < at.random:
		return h, at, ErrCut
	case binary.BigEndian.Uint16(file[len(magic):]) != format:
		return h, at, ErrFormat
	case len(file) < head:
		return h, at, ErrCut
	}
	size := binary.BigEndian.Uint32(file[head-4:])
	switch at.payload = head + int(size); {
	case size > mostHeader:
		return h, at, ErrChanged
	case len(file) < at.payload:
		return h, at, ErrCut
	case json.Unmarshal(file[head:at.payload], &h) != nil:
		return h, at, ErrChanged
	}
	return h, at, nil
}

// Peek reads what a file says of itself, which nothing has authenticated.
func Peek(file []byte) (Header, error) {
	h, _, err := parse(file)
	return h, err
}
