package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/ask"
)

// sample is a value that each parameter accepts.
func (p *parameter) sample() string {
	switch {
	case p.of != nil:
		return p.of[0]
	case p.kind == number:
		return "2"
	case p.kind == flag:
		return "true"
	}
	return map[string]string{"domain": "b.example", "section": "b.example/", "method": "GET", "since": "2h", "until": "2026-03-04T11:30:00Z", "status": "5xx", "role": "server", "filter": "user_agent=a=b", "sort-by": "-hits",
		"list": "section", "host": "web-1", "against": "7d", "key": "b.example/", "columns": "hits"}[p.name]
}

// TestAnswersFitTheirDescription asks every question with each of its parameters, and holds the answers against the schemas
// that the server itself gives.
func TestAnswersFitTheirDescription(t *testing.T) {
	x := newSite(t)
	_, body := x.get("api/v1/openapi.json")
	var c schemaChecker
	paths, err := c.read([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) != len(list) || len(list) < 12 {
		t.Errorf("%d paths are described, and there are %d", len(paths), len(list))
	}
	asked := 0
	for _, e := range list {
		operation := paths["/"+e.path].(map[string]any)["get"].(map[string]any)
		var described []string
		for _, p := range operation["parameters"].([]any) {
			described = append(described, p.(map[string]any)["name"].(string))
		}
		needed := url.Values{}
		for _, p := range e.parameters {
			if p.need {
				needed.Set(p.name, p.sample())
			}
		}
		if e.write == nil || e.schema == "" {
			continue
		}
		for _, name := range append([]string{""}, described...) {
			q := url.Values{}
			for k, v := range needed {
				q[k] = v
			}
			if p := e.parameter(name); p != nil {
				if q.Set(name, p.sample()); q.Get(name) == "" && p.kind == text && p.name == "step" {
					t.Fatalf("no sample of %s", name)
				}
			}
			switch {
			case name == "peers":
				q.Set("host", "web-1")
			case e.path == "hosts" && (name == "columns" || name == "sort-by"):
				q.Set(name, "rate")
			case e.path == "alerts" && (name == "columns" || name == "sort-by"):
				q.Set(name, "start")
			case e.path == "series" && (name == "columns" || name == "sort-by"):
				q.Set(name, "requests")
			case e.path == "lists" && (name == "columns" || name == "sort-by"):
				q.Set(name, "title")
			}
			a, body := x.get("api/v1/" + e.path + "?" + q.Encode())
			if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/json; charset=utf-8" || a.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s?%s: %s, %s", e.path, q.Encode(), a.Status, body)
				continue
			}
			asked++
			content := operation["responses"].(map[string]any)["200"].(map[string]any)["content"].(map[string]any)["application/json"].(map[string]any)
			var value any
			if err := json.Unmarshal([]byte(body), &value); err != nil {
				t.Fatal(err)
			}
			c.whole = name != "columns" && name != "sort-by"
			for _, wrong := range c.check(content["schema"].(map[string]any), value, e.path) {
				t.Errorf("%s?%s: %s", e.path, q.Encode(), wrong)
			}
		}
	}
	if asked < 60 {
		t.Errorf("%d questions were asked", asked)
	}
}

// TestSchemasCanFail: the checker sees what is missing, surplus or of another type.
func TestSchemasCanFail(t *testing.T) {
	var c schemaChecker
	body, err := document()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.read(body); err != nil {
		t.Fatal(err)
	}
	schema := c.schemas["Error"].(map[string]any)
	for text, want := range map[string]int{
		`{"error":{"what":"a","where":"","hint":""}}`:            0,
		`{"error":{"what":"a","where":""}}`:                      1,
		`{"error":{"what":"a","where":"","hint":"","more":"x"}}`: 1,
		`{"error":{"what":1,"where":null,"hint":""}}`:            2,
		`{"error":["what"]}`:                                     1,
	} {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if wrong := c.check(schema, v, "error"); len(wrong) != want {
			t.Errorf("%s: %q, want %d", text, wrong, want)
		}
	}
}

// faultOf reads the body of a failure.
func faultOf(t *testing.T, body string) (what, where, hint string) {
	t.Helper()
	var e struct {
		Error struct{ What, Where, Hint string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return e.Error.What, e.Error.Where, e.Error.Hint
}

func TestWrongQuestions(t *testing.T) {
	x := newSite(t)
	for _, c := range []struct {
		question    string
		code        int
		where, says string
	}{
		{"top?list=sektion", 400, "list", `did you mean "section"?`},
		{"top", 400, "list", "the parameter list is missing"},
		{"top?list=section&list=routes", 400, "list", "give it once"},
		{"top?list=section&sinse=1h", 400, "sinse", "did you mean since?"},
		{"top?list=section&limit=-1", 400, "limit", "whole number"},
		{"top?list=section&limit=1e3", 400, "limit", "whole number"},
		{"top?list=section&limit=4294967296", 400, "limit", "whole number"},
		{"top?list=section&columns=hits,key,hits", 400, "columns", "each once"},
		{"hosts?columns=" + strings.Repeat("id,", maxParameters) + "id", 400, "columns", "more than"},
		{"top?list=section&host=" + strings.Repeat("a,", maxParameters) + "a", 400, "host", "more than"},
		{"top?list=section&columns=hts", 400, "columns", "there are: "},
		{"top?list=section&status=5yy", 400, "status", "a class such as 5xx"},
		{"top?list=section&host=", 400, "host", "empty"},
		{"top?list=section&filter=x", 400, "filter", "KEY=VALUE"},
		{"top?list=section&host=%ff", 400, "host", "UTF-8"},
		{"top?list=section&host=a%00", 400, "host", "UTF-8"},
		{"top?list=section;x", 400, "", "cannot be read"},
		{"top?list=section&since=soon", 400, "since", "want how long ago"},
		{"top?list=section&since=1h&until=2h", 400, "since", "that is not before until 2h"},
		{"top?list=section&host=nobody", 400, "", `no host "nobody"`},
		{"hosts?host=nobody", 400, "host", "there are: web-1"},
		{"hosts?status=503", 400, "status", "there are: "},
		{"alerts?active=yes", 400, "active", "true or false"},
		{"series?step=2h", 400, "step", "1m, 10m, 1h"},
		{"compare?peers=true", 400, "peers", "it needs one host"},
		{"compare?peers=true&host=web-1&against=1d", 400, "", "peers and against exclude each other"},
		{"status?since=1h", 400, "since", "there are none"},
		{"dashboard?limit=404", 500, "", "damaged"},
		{"dashboard?" + strings.Repeat("host=a&", maxParameters+1), 400, "host", "more than"},
		{"nothing", 404, "", "openapi.json"},
		{"../../etc/passwd", 404, "", "nothing at"},
	} {
		a, body := x.get("api/v1/" + c.question)
		what, where, hint := faultOf(t, body)
		if a.StatusCode != c.code || where != c.where || !strings.Contains(what+" "+hint, c.says) {
			t.Errorf("%s: %d, %s; want %d, where %q, and %q", c.question, a.StatusCode, body, c.code, c.where, c.says)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
		r, _ := http.NewRequestWithContext(t.Context(), method, x.url+"api/v1/hosts", nil)
		a, err := x.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if a.Body.Close(); a.StatusCode != 405 || a.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %s, Allow %q", method, a.Status, a.Header.Get("Allow"))
		}
	}
}

// TestAllRows: limit=0 asks for all rows, none for the aggregator's own number.
func TestAllRows(t *testing.T) {
	x := newSite(t)
	for query, want := range map[string]uint32{"": 0, "?limit=0": ask.MaxRows, "?limit=7": 7} {
		if a, body := x.get("api/v1/dashboard" + query); a.StatusCode != 200 {
			t.Fatalf("dashboard%s: %s %s", query, a.Status, body)
		}
		if got := x.fake.last.Load().Limit; got != want {
			t.Errorf("dashboard%s asks for %d rows, want %d", query, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	x := newSite(t)
	err := status.Error(codes.PermissionDenied, `GetDashboard needs the role viewer, and certificate "<b>" has none`)
	x.refuse.Store(&err)
	for _, path := range []string{"api/v1/dashboard", "api/v1/stream", "", "assets/nothing"} {
		a, body := x.get(path)
		if !a.Close {
			t.Errorf("/%s: the connection of who is refused stays, and with it the certificate", path)
		}
		if what, _, _ := faultOf(t, body); a.StatusCode != 403 || !strings.Contains(what, "needs the role viewer") || strings.Contains(body, "<b>") {
			t.Errorf("/%s: %s %s, want 403 and what is missing", path, a.Status, body)
		}
	}
}

// TestHostileStrings: what traffic calls itself is never markup, whatever a browser takes the answer for, and stays the same.
func TestHostileStrings(t *testing.T) {
	x := newSite(t)
	for _, path := range []string{"api/v1/dashboard", "api/v1/top?list=section", "api/v1/hosts"} {
		_, body := x.get(path)
		if strings.ContainsAny(body, "<>&\u2028\x07") || !utf8.ValidString(body) {
			t.Errorf("%s has markup or control characters", path)
		}
		if !strings.Contains(body, `\u003c/script\u003e\u003cimg src=x onerror=alert(1)\u003e\u0026\u2028\u0007`) {
			t.Errorf("%s does not have the string", path)
		}
		var v any
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, body := x.get("api/v1/top?list=%3Cscript%3E%1b[2J"); strings.ContainsAny(body, "<>\x1b") {
		t.Errorf("an error repeats markup: %s", body)
	}
}

// TestWorstHostsFirst: hosts=N keeps those in trouble.
func TestWorstHostsFirst(t *testing.T) {
	x := newSite(t)
	for n, want := range map[string]string{"0": "", "3": "web-5 web-4 web-3", "4": "web-5 web-4 web-3 web-1", "99": "web-5 web-4 web-3 web-1 " + hostile} {
		_, body := x.get("api/v1/dashboard?hosts=" + n)
		var d struct{ Hosts []struct{ Name string } }
		if err := json.Unmarshal([]byte(body), &d); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, h := range d.Hosts {
			names = append(names, h.Name)
		}
		if got := strings.Join(names, " "); got != want || d.Hosts == nil {
			t.Errorf("hosts=%s: %q, want %q", n, got, want)
		}
	}
}

// TestQuestionsAreBounded: who asks when too many of theirs wait is told so at once, and others are answered.
func TestQuestionsAreBounded(t *testing.T) {
	x := newSite(t)
	x.fake.hold = make(chan struct{})
	x.client.Transport.(*http.Transport).MaxIdleConnsPerHost = 2 * maxAnswersOfOne
	codes := make(chan int, maxAnswersOfOne)
	for range maxAnswersOfOne {
		go func() {
			a, err := x.client.Get(x.url + "api/v1/top?list=section")
			if err != nil {
				codes <- 0
				return
			}
			a.Body.Close()
			codes <- a.StatusCode
		}()
	}
	for waiting := 0; waiting < maxAnswersOfOne; time.Sleep(time.Millisecond) {
		x.mu.Lock()
		waiting = x.asking
		x.mu.Unlock()
	}
	if a, body := x.get("api/v1/top?list=section"); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("one more question: %s %s, want 503", a.Status, body)
	}
	if len(x.making) != maxMaking {
		t.Errorf("%d answers are made at once, want %d", len(x.making), maxMaking)
	}
	var leaves []func()
	for i := maxAnswersOfOne; i < maxAnswers; i++ { // of others
		leave, err := x.begin("192.0.2." + strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	if _, err := x.begin("198.51.100.1"); err == nil {
		t.Errorf("more than %d questions of all", maxAnswers)
	}
	for _, leave := range leaves {
		leave()
	}
	close(x.fake.hold)
	for range maxAnswersOfOne {
		if code := <-codes; code != 200 {
			t.Errorf("a question within the limit: %d", code)
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.asking != 0 || len(x.askingFrom) != 0 {
		t.Errorf("%d questions of %d addresses are left", x.asking, len(x.askingFrom))
	}
}

func TestPanicIsAnswered(t *testing.T) {
	x := newSite(t)
	x.fake.panic.Store(true)
	if a, body := x.get("api/v1/top?list=section"); a.StatusCode != 500 || !strings.Contains(body, "report it") {
		t.Errorf("%s %s", a.Status, body)
	}
	v := x.watch("")
	_, _ = v.next()
	if what, _, _ := faultOf(t, v.want("failure")["data"]); !strings.Contains(what, "failed to answer") {
		t.Errorf("a stream says %q", what)
	}
	x.fake.panic.Store(false)
	v.want("dashboard")
	if a, _ := x.get("api/v1/top?list=section"); a.StatusCode != 200 {
		t.Errorf("after a panic: %s", a.Status)
	}
}

// FuzzQuestion: whatever stands behind the question mark, there is an answer or a failure that says what is wrong.
func FuzzQuestion(f *testing.F) {
	for _, s := range []string{"", "since=1h&until=now", "host=a,b&host=c&status=5xx", "filter=a=b", "limit=10&hosts=0", "%zz", "a;b", "host=%22a", "since=9999999999d", "until=0001-01-01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		for _, e := range list {
			q, err := e.parse(&http.Request{URL: &url.URL{RawQuery: query}}, noon)
			switch {
			case err == nil && q == nil:
				t.Fatal("neither a question nor an error")
			case err != nil:
				failure := failureOf(err)
				what, _, _ := faultOf(t, string(failure.body()))
				if failure.code != 400 || what == "" || strings.ContainsAny(string(failure.body()), "<>&") {
					t.Errorf("%q: %d %s", query, failure.code, failure.body())
				}
			default:
				for name := range q.given {
					if !slices.ContainsFunc(e.parameters, func(p parameter) bool { return p.name == name }) {
						t.Errorf("%q: the parameter %q was accepted", query, name)
					}
				}
			}
		}
	})
}
