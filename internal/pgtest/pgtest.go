// Package pgtest asks a PostgreSQL one question on a connection of its own, as tests want it: with the SQLSTATE of a
// failure, and without a driver in go.mod.
//
// It speaks version 3 of the protocol (PostgreSQL's documentation, "Frontend/Backend Protocol") and knows two ways to
// log in: trust, and password in clear text, which vaulttest.NewPostgres asks for.
package pgtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Login says where and as whom to ask.
type Login struct {
	Addr     string // host:port
	User     string
	Password string
	Database string
}

// Error is what the server says. InvalidPassword is its code for a wrong password, one past its VALID UNTIL, and a role
// that does not exist.
type Error struct {
	Code    string // SQLSTATE
	Message string
}

// InvalidPassword is the SQLSTATE invalid_password.
const InvalidPassword = "28P01"

func (e *Error) Error() string { return "SQLSTATE " + e.Code + ": " + e.Message }

// Code is the SQLSTATE of a failure, or "-" when the server did not say one, for example because it was not reached.
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return "-"
}

// Query connects, asks and disconnects. It returns the rows as text; a null is "".
func Query(ctx context.Context, l Login, sql string) ([][]string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", l.Addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(30 * time.Second)
	}
	_ = conn.SetDeadline(end)
	c := &client{w: conn, r: bufio.NewReader(conn), login: l}
	if err := c.start(); err != nil {
		return nil, err
	}
	if err := c.send('Q', append([]byte(sql), 0)); err != nil {
		return nil, err
	}
	if err := c.untilReady(); err != nil {
		return nil, err
	}
	return c.rows, c.send('X', nil)
}

type client struct {
	w     io.Writer
	r     *bufio.Reader
	login Login
	rows  [][]string
}

// send sends one message; kind 0 is the startup message, which has none.
func (c *client) send(kind byte, body []byte) error {
	var msg []byte
	if kind != 0 {
		msg = append(msg, kind)
	}
	msg = binary.BigEndian.AppendUint32(msg, uint32(len(body)+4))
	_, err := c.w.Write(append(msg, body...))
	return err
}

func (c *client) start() error {
	body := binary.BigEndian.AppendUint32(nil, 3<<16)
	for _, s := range []string{"user", c.login.User, "database", c.login.Database, "application_name", "pgtest", ""} {
		body = append(append(body, s...), 0)
	}
	if err := c.send(0, body); err != nil {
		return err
	}
	return c.untilReady()
}

// untilReady reads until the server waits for a question. The first failure that the server tells is the one that counts.
func (c *client) untilReady() error {
	var failure error
	for {
		kind, body, err := c.read()
		if err != nil {
			return errors.Join(failure, err)
		}
		switch kind {
		case 'R':
			if err := c.authenticate(body); err != nil {
				return err
			}
		case 'D':
			row, err := fields(body)
			if err != nil {
				return err
			}
			c.rows = append(c.rows, row)
		case 'E':
			e := serverError(body)
			failure = errors.Join(failure, e)
		case 'Z':
			return failure
		}
	}
}

// mostMessage bounds what is read at once: no test asks for as much.
const mostMessage = 1 << 20

func (c *client) read() (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > mostMessage {
		return 0, nil, fmt.Errorf("a message of %d bytes, which is not PostgreSQL's", n)
	}
	body := make([]byte, n-4)
	_, err := io.ReadFull(c.r, body)
	return head[0], body, err
}

func (c *client) authenticate(body []byte) error {
	if len(body) < 4 {
		return io.ErrUnexpectedEOF
	}
	switch how := binary.BigEndian.Uint32(body); how {
	case 0:
		return nil
	case 3:
		return c.send('p', append([]byte(c.login.Password), 0))
	default:
		return fmt.Errorf("the server asks for authentication %d, and pg_hba.conf should say password", how)
	}
}

func fields(body []byte) ([]string, error) {
	if len(body) < 2 {
		return nil, io.ErrUnexpectedEOF
	}
	row := make([]string, binary.BigEndian.Uint16(body))
	body = body[2:]
	for i := range row {
		if len(body) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := int32(binary.BigEndian.Uint32(body))
		body = body[4:]
		if n < 0 {
			continue
		}
		if len(body) < int(n) {
			return nil, io.ErrUnexpectedEOF
		}
		row[i], body = string(body[:n]), body[n:]
	}
	return row, nil
}

// serverError reads an ErrorResponse: fields of a letter and a text.
func serverError(body []byte) *Error {
	e := &Error{Code: "-"}
	for part := range bytes.SplitSeq(body, []byte{0}) {
		if len(part) == 0 {
			continue
		}
		switch part[0] {
		case 'C':
			e.Code = string(part[1:])
		case 'M':
			e.Message = string(part[1:])
		}
	}
	return e
}
