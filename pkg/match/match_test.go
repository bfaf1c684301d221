package match

import (
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
)

func whole() exchange.Exchange {
	return exchange.Exchange{
		HasRequest: true, HasResponse: true, Role: exchange.Server, Method: "GET", Domain: "shop.example.org", Section: "shop.example.org/cart",
		UserAgent: "Mozilla/5.0 (X11; Linux) Gecko/2010", Status: 503, RequestStart: 1, RequestEnd: 10, ResponseStart: 10 + int64(time.Second), ResponseEnd: 20 + int64(time.Second),
	}
}

func TestMatch(t *testing.T) {
	one := func(name string, values ...string) []Column { return []Column{{name, values}} }
	for _, c := range []struct {
		columns []Column
		slower  time.Duration
		change  func(*exchange.Exchange)
		want    bool
	}{
		{nil, 0, nil, true},
		{one("status", "503"), 0, nil, true},
		{one("status", "500", "5xx"), 0, nil, true},
		{one("status", "5XX"), 0, nil, true},
		{one("status", "4xx", "502"), 0, nil, false},
		{one("status", "5xx"), 0, func(x *exchange.Exchange) { x.Status = 600 }, false},
		{one("status", "-"), 0, nil, false},
		{one("status", "-"), 0, func(x *exchange.Exchange) { x.Status, x.HasResponse = 0, false }, true},
		{one("method", "POST", "GET"), 0, nil, true},
		{one("method", "get"), 0, nil, false}, // methods are case-sensitive
		{one("method", "BREW"), 0, func(x *exchange.Exchange) { x.Method = "BREW" }, true},
		{one("method", "_OTHER"), 0, func(x *exchange.Exchange) { x.Method = "BREW" }, true},
		{one("method", "_OTHER"), 0, func(x *exchange.Exchange) { x.Method, x.HasRequest = "", false }, false},
		{one("role", "server"), 0, nil, true},
		{one("role", "client", "transit"), 0, nil, false},
		{one("domain", "shop.example.org"), 0, nil, true},
		{one("domain", "example.org"), 0, nil, false},
		{one("section", "shop.example.org/cart"), 0, nil, true},
		{one("section", "shop.example.org/"), 0, nil, false},
		{one("user_agent", "gecko"), 0, nil, true},
		{one("user_agent", "MOZILLA*linux*2010"), 0, nil, true},
		{one("user_agent", "linux*mozilla"), 0, nil, false},
		{one("user_agent", "gecko/2010*0"), 0, nil, false}, // no byte counts twice
		{one("user_agent", "curl", "x11"), 0, nil, true},
		{one("user_agent", "*"), 0, nil, true},
		{one("user_agent", "*"), 0, func(x *exchange.Exchange) { x.UserAgent = "" }, false},
		{nil, time.Second, nil, true},
		{nil, time.Second + 1, nil, false},
		{nil, 1, func(x *exchange.Exchange) { x.HasResponse = false }, false},
		{[]Column{{"status", []string{"503"}}, {"method", []string{"GET"}}}, 0, nil, true},
		{[]Column{{"status", []string{"503"}}, {"method", []string{"PUT"}}}, 0, nil, false},
	} {
		f, err := New(c.columns, c.slower)
		if err != nil {
			t.Errorf("New(%v, %s): %v", c.columns, c.slower, err)
			continue
		}
		x := whole()
		if c.change != nil {
			c.change(&x)
		}
		if got := f.Match(&x); got != c.want {
			t.Errorf("New(%v, %s).Match(%+v) = %v, want %v", c.columns, c.slower, x, got, c.want)
		}
	}
}

func TestFilterIsRefused(t *testing.T) {
	for _, c := range []struct {
		columns []Column
		slower  time.Duration
		want    string
	}{
		{[]Column{{"path", []string{"/"}}}, 0, `no filter "path"; they have: host, status`},
		{[]Column{{"status", nil}}, 0, "0 values"},
		{[]Column{{"status", make([]string, MaxValues+1)}}, 0, "65 values"},
		{[]Column{{"domain", []string{""}}}, 0, "0 bytes"},
		{[]Column{{"domain", []string{strings.Repeat("a", MaxValue+1)}}}, 0, "1025 bytes"},
		{[]Column{{"status", []string{"5x"}}}, 0, `"5x"`},
		{[]Column{{"status", []string{"5+1"}}}, 0, `"5+1"`},
		{[]Column{{"status", []string{"099"}}}, 0, `"099"`},
		{[]Column{{"role", []string{"Server"}}}, 0, "want server, client or transit"},
		{[]Column{{"role", []string{"server"}}, {"role", []string{"client"}}}, 0, "twice"},
		{nil, -1, "0 or more"},
	} {
		if _, err := New(c.columns, c.slower); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%v, %s) = %v, want an error with %q", c.columns, c.slower, err, c.want)
		}
	}
}

// TestAllocations: who is asked for costs no memory for each exchange.
func TestAllocations(t *testing.T) {
	f, err := New([]Column{{"status", []string{"4xx", "5xx"}}, {"method", []string{"GET"}}, {"domain", []string{"shop.example.org"}}, {"user_agent", []string{"Lin*2010"}}}, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	x := whole()
	if n := testing.AllocsPerRun(100, func() {
		if !f.Match(&x) {
			t.Error("no match")
		}
	}); n != 0 {
		t.Errorf("Match allocates %v times, want 0", n)
	}
}
