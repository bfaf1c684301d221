package web

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/view"
)

const (
	// methodPrefix and a method are the full name of a call of gRPC, whose role a question takes.
	methodPrefix = "/httpctl.v1.QueryService/"
	// methodAny is the call that whoever may read may make; it stands for the page's files.
	methodAny = "GetStatus"
)

// endpoint is a question that can be asked.
type endpoint struct {
	path string
	// method is the call of gRPC whose role it takes.
	method string
	// command is the command that prints the same, and summary what that is.
	command, summary string
	// schema names the answer's, in schemas.json.
	schema     string
	parameters []parameter
	// write asks and writes the answer; nil is answered otherwise.
	write func(ctx context.Context, s *Server, q *question, w io.Writer) error
}

const apiPrefix = "/api/v1/"

// dashboardParameters are those of the dashboard and of the stream of it.
var dashboardParameters = slices.Concat(rangeParameters, filterParameters, []parameter{
	limitParameter,
	{name: "hosts", kind: number, help: "Hosts at most, those in trouble first. Without it, all of them by name."},
})

// list are the endpoints, in the order in which they are described.
var list = []*endpoint{
	{path: "dashboard", method: "GetDashboard", command: "dashboard --once", schema: "Dashboard", parameters: dashboardParameters,
		summary: "Everything the dashboard shows, of one moment: state, rate, top lists, alerts, hosts.",
		write: func(ctx context.Context, s *Server, q *question, w io.Writer) error {
			d, err := s.dashboard(ctx, q)
			if err != nil {
				return err
			}
			return view.WriteDashboard(w, view.FormatJSON, q.style(), d)
		}},
	{path: "stream", method: "GetDashboard", schema: "Dashboard", parameters: dashboardParameters,
		summary: "The dashboard as server-sent events: an event `dashboard` each time there is a new picture, once a second at most, and `failure` with an Error when there is none."},
	{path: "top", method: "GetTop", command: "top LIST", schema: "Top", parameters: slices.Concat([]parameter{listParameter}, rangeParameters, filterParameters, []parameter{limitParameter}, columnParameters),
		summary: "One top list: keys with hits, error bounds, shares and measures.",
		write: func(ctx context.Context, s *Server, q *question, w io.Writer) error {
			q.Live = q.Until.IsZero()
			t, err := s.reader.List(ctx, q.one("list"), q.Question)
			if err != nil {
				return err
			}
			return view.WriteTop(w, view.FormatJSON, q.style(), t)
		}},
	{path: "lists", method: "ListDimensions", command: "top", schema: "Lists", parameters: columnParameters,
		summary: "The top lists that there are, with their titles, keys, columns and filters.",
		write: func(ctx context.Context, s *Server, q *question, w io.Writer) error {
			dimensions, err := s.reader.Dimensions(ctx)
			if err != nil {
				return err
			}
			return view.WriteDimensions(w, view.FormatJSON, q.style(), dimensions)
		}},
	{path: "hosts", method: "ListHosts", command: "hosts", schema: "Hosts", parameters: slices.Concat(rangeParameters, []parameter{hostParameter}, columnParameters),
		summary: "The monitored hosts: health, rate, and what was not seen.",
		write: func(ctx context.Context, s *Server, q *question, w io.Writer) error {
			hosts, err := s.reader.HostsChosen(ctx, q.Question)
			if err != nil {
				return err
			}
			return view.WriteHosts(w, view.FormatJSON, q.style(), hosts)
		}},
	{path: "series", method: "GetSeries", command: "series", schema: "Series", parameters: slices.Concat(rangeParameters, filterParameters, []parameter{
		{name: "step", help: "How much time one point sums up. Without it, it follows from the length of the range.", of: ask.StepTexts()},
		{name: "outcomes", kind: flag, help: "Also how exchanges ended, and how long responses took."},
	}, columnParameters),
		summary: "Requests over time.",
		write: func(ctx context.Context, s *Server, q *question, w io.Writer) error {
			step, err := ask.Step(q.one("step"))
			if err != nil {
				return err
			}
			q.Outcomes = q.is("outcomes")
			x, err := s.reader.Series(ctx, step, q.Question)
			if err != nil {
				return err
			}
			return view.WriteSeries(w, view.FormatJSON, q.style(), x)
		}},
	{path: "alerts", method: "ListAlerts", command: "alerts", schema: "Alerts", parameters: slices.Concat(rangeParameters, []parameter{
		{name: "active", kind: flag, help: "Only the one that lasts."},
	}, columnParameters),
		summary: "The alerts that overlap the range, the newest first.",
		write: func(ctx context.Context, s *Server, q *question, w io.Writer) error {
			a, err := s.reader.AlertsChosen(ctx, q.Question, q.is("active"))
			if err != nil {
				return err
			}
			return view.WriteAlerts(w, view.FormatJSON, q.style(), a)
		}},
	{path: "compare", method: "GetTop", command: "compare [LIST]", schema: "Comparisons", parameters: slices.Concat([]parameter{
		{name: "list", help: "One top list. Without it, each that takes the filters."},
	}, rangeParameters, filterParameters, []parameter{
		{name: "against", help: "How much earlier the other range is: 1h, 7d, yesterday or last-week. Without it, yesterday."},
		{name: "peers", kind: flag, help: "Hold the one host against the others at the same time, instead."},
		{name: "limit", kind: number, help: "Keys of each list at most, 0 is all. Without it, 5."},
	}),
		summary: "What is different: a range from an earlier one, or one host from its peers.",
		write: func(ctx context.Context, s *Server, q *question, w io.Writer) error {
			how := ask.Comparing{Dimension: q.one("list"), Against: q.one("against"), Peers: q.is("peers"), Limit: q.number("limit", 5)}
			q.Limit = 0
			list, notes, err := s.reader.Compare(ctx, q.Question, how, q.now)
			if err != nil {
				return err
			}
			return view.WriteComparisons(w, view.FormatJSON, q.style(), list, notes)
		}},
	{path: "explain", method: "Explain", command: "explain LIST [KEY...]", schema: "Explanation", parameters: slices.Concat([]parameter{
		listParameter,
		{name: "key", kind: texts, help: "The key, once for each key of the list. Without it, the list's total is explained."},
	}, rangeParameters, filterParameters, columnParameters),
		summary: "Where a number of a top list comes from: which hosts, which buckets, what was not seen.",
		write: func(ctx context.Context, s *Server, q *question, w io.Writer) error {
			e, err := s.reader.ExplainKnown(ctx, q.one("list"), q.given["key"], q.Question)
			if err != nil {
				return err
			}
			return view.WriteExplanation(w, view.FormatJSON, q.style(), e)
		}},
	{path: "status", method: "GetStatus", schema: "Status",
		summary: "Where the fleet stands: the member `status` of the dashboard.",
		write: func(ctx context.Context, s *Server, _ *question, w io.Writer) error {
			st, err := s.reader.Status(ctx)
			if err != nil {
				return err
			}
			return view.WriteStatus(w, st)
		}},
	{path: "baseline", method: "GetBaseline", command: "baseline", schema: "Baseline",
		summary: "What was learned as the normal rate, from when and whom.",
		write: func(ctx context.Context, s *Server, q *question, w io.Writer) error {
			b, err := s.reader.Baseline(ctx)
			if err != nil {
				return err
			}
			st, err := s.reader.Status(ctx)
			if err != nil {
				return err
			}
			return view.WriteBaseline(w, view.FormatJSON, q.style(), b, st.Window)
		}},
	{path: "openapi.json", method: methodAny, summary: "This description.",
		write: func(_ context.Context, s *Server, _ *question, w io.Writer) error {
			_, err := w.Write(s.openapi)
			return err
		}},
}

// endpoints are the same by path.
var endpoints = map[string]*endpoint{}

func init() {
	for _, e := range list {
		endpoints[apiPrefix+e.path] = e
	}
}

// answer answers a question.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, e *endpoint) error {
	q, err := e.parse(r, s.deps.Now())
	if err != nil {
		return err
	}
	if e.write == nil {
		return s.stream(w, r, e, q)
	}
	leave, err := s.begin(addressOf(r))
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(r.Context(), answerWait)
	defer cancel()
	var body []byte
	if err := s.make(ctx, func() error {
		var b bytes.Buffer
		err := e.write(ctx, s, q, &b)
		body = harmless(b.Bytes())
		return err
	}); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeWait)) // what cannot be set has that of the server
	if len(body) > leastPacked && accepts(r, "gzip") {
		h.Set("Content-Encoding", "gzip")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is valid
		_, _ = z.Write(body)                           // who went away needs no answer
		_ = z.Close()
		return nil
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
	return nil
}

// begin notes a question that is under way until leave is called, if there are not too many.
func (s *Server) begin(from string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := 0
	switch {
	case s.asking >= maxAnswers:
		most = maxAnswers
	case s.askingFrom[from] >= maxAnswersOfOne:
		most = maxAnswersOfOne
	}
	if most > 0 {
		s.metrics.refused.WithLabelValues(tooManyAnswers).Inc()
		return nil, fail(http.StatusServiceUnavailable, "", "try again in a moment", "%d questions are under way, the most that there may be", most)
	}
	s.asking++
	s.askingFrom[from]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asking--
		if s.askingFrom[from]--; s.askingFrom[from] == 0 {
			delete(s.askingFrom, from)
		}
	}, nil
}

// make runs f, which makes an answer, when few others are made.
func (s *Server) make(ctx context.Context, f func() error) error {
	select {
	case s.making <- struct{}{}:
		defer func() { <-s.making }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// addressOf is where a request comes from, without the port.
func addressOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// leastPacked is from how many bytes on an answer is compressed: what fits one packet gains nothing.
const leastPacked = 1400

// harmless writes < > & of JSON in its own escapes, so that no browser takes an answer for markup, whatever it
// was told that it is. Outside of strings JSON has none of them. The values stay the same.
func harmless(body []byte) []byte {
	var b bytes.Buffer
	b.Grow(len(body) + len(body)/16)
	json.HTMLEscape(&b, body)
	return b.Bytes()
}

// dashboard asks for the dashboard.
func (s *Server) dashboard(ctx context.Context, q *question) (*view.Dashboard, error) {
	q.Live = true
	d, err := s.reader.Dashboard(ctx, q.Question)
	if err != nil {
		return nil, err
	}
	if n := q.number("hosts", -1); n >= 0 {
		d.Hosts = worst(d.Hosts, n)
	}
	return d, nil
}

// worst returns the first n hosts, those in trouble before the others: gone, late, or not seeing all.
func worst(hosts []view.Host, n int) []view.Host {
	rank := func(h view.Host) int {
		switch {
		case h.Health == view.Gone:
			return 0
		case h.Health == view.Late:
			return 1
		case len(view.Loss(h.Counters)) > 0 || len(h.SameID) > 0:
			return 2
		}
		return 3
	}
	slices.SortStableFunc(hosts, func(a, b view.Host) int { return cmp.Compare(rank(a), rank(b)) })
	return hosts[:min(n, len(hosts))]
}
