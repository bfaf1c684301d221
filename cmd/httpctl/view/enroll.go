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
