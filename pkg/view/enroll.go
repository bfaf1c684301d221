package view

import (
	"io"
	"time"
)

// Token is an enrolment token, without its secret.
type Token struct {
	ID               string
	Created, Expires time.Time
	Uses, Left       uint32
	Host             string // that may use it, "" for any
}

// WriteTokens writes enrolment tokens.
func WriteTokens(w io.Writer, f Format, s Style, tokens []Token) error {
	g := &Grid{Columns: []Column{
		{Name: "token", Head: "TOKEN", Kind: Word}, {Name: "uses_left", Head: "LEFT", Kind: Number}, {Name: "uses", Head: "USES", Kind: Number},
		{Name: "created", Head: "CREATED", Kind: Moment, Drop: 2}, {Name: "expires", Head: "EXPIRES", Kind: Moment}, {Name: "host", Head: "ONLY FOR", Drop: 1},
	}}
	for _, t := range tokens {
		var host any
		if t.Host != "" {
			host = t.Host
		}
		g.Rows = append(g.Rows, Row{Cells: []any{t.ID, int64(t.Left), int64(t.Uses), moment(t.Created), moment(t.Expires), host}})
	}
	if len(tokens) == 0 {
		g.Notes = []string{"No token can be used: httpctl enroll create makes one."}
	}
	return write(w, f, s, g, func() any { return object{{"tokens", g.objects(g.Rows)}} })
}

// Certificate is what is known of the certificates of an identity.
type Certificate struct {
	Identity string
	// Host, Enrolled and Until are of a host that has enrolled: the name it says it has, and until when its newest one holds.
	Host            string
	Enrolled, Until time.Time
	Revoked         time.Time // zero if it is not
}

// WriteCertificates writes the hosts that have enrolled, and what is revoked.
func WriteCertificates(w io.Writer, f Format, s Style, all []Certificate) error {
	g := &Grid{Columns: []Column{
		{Name: "host", Head: "HOST"}, {Name: "identity", Head: "IDENTITY"}, {Name: "enrolled", Head: "ENROLLED", Kind: Moment, Drop: 2},
		{Name: "until", Head: "UNTIL", Kind: Moment, Drop: 1}, {Name: "revoked", Head: "REVOKED", Kind: Moment},
	}}
	for _, c := range all {
		tone := Plain
		switch {
		case !c.Revoked.IsZero():
			tone = Bad
		case c.Until.Before(s.Now):
			tone = Warn
		}
		var host any
		if c.Host != "" {
			host = c.Host
		}
		g.Rows = append(g.Rows, Row{Tone: tone, Cells: []any{host, c.Identity, moment(c.Enrolled), moment(c.Until), moment(c.Revoked)}})
	}
	if len(all) == 0 {
		g.Notes = []string{"No host has enrolled yet."}
	}
	return write(w, f, s, g, func() any { return object{{"certificates", g.objects(g.Rows)}} })
}
