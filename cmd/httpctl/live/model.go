package live

import (
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/httpctl/httpctl/pkg/view"
)

// Filter keeps what has the value in the column.
type Filter struct{ Column, Value string }

// Request is a question: a dashboard of what passes the filters, with so many rows a list (0: as many as
// the aggregator shows).
type Request struct {
	Filters []Filter
	Rows    uint32
	// Since and Until are a stretch of time; where both are zero, that of the command line. A zero Until is now.
	Since, Until time.Time
	// Beside says that it is asked beside another: neither overtakes the other.
	Beside bool
}

// Options say what a Model shows.
type Options struct {
	// Ask answers a request. It is called in a goroutine of its own; a later call may overtake it.
	Ask func(Request) (*view.Dashboard, error)
	// Hour answers with the rate by the minute since the request's Since, of the hosts of its filters; nil: nobody does.
	// It is called as Ask is.
	Hour func(Request) (*view.Series, error)
	// Why says in one line why an error kept Ask from answering.
	Why func(error) string
	// When reads a time as people write it, such as 90m for how long before now.
	When func(text string, now time.Time) (time.Time, error)
	// Filters are the columns that the command line has filtered by.
	Filters []string
	// Suspend is what Ctrl-Z does; nil does nothing.
	Suspend tea.Cmd
	// Style is how texts are drawn. Its width and height are those of the first picture.
	Style view.Style
	// Light says that the terminal's background is light, until the terminal says so itself.
	Light bool
}

// Model is the state of the view. It is a tea.Model.
type Model struct {
	o   Options
	ink *palette

	d          *view.Dashboard
	at         time.Time // when d came, by the clock of the ticks
	now        time.Time // of the last tick
	next       time.Time // when to ask again
	asked      int       // counts requests
	waits      bool      // for the answer to the last of them
	lost       time.Time // since when there is no answer; zero: there is
	why        string
	screen     screen
	path       []step
	focus      string // name of the panel
	lists      map[string]*listState
	panels     []*panel
	first      int    // row of panels that is drawn first
	input      *input // what is typed in the last line
	when       stretch
	zones      []zone // where the last picture has lists
	noMouse    bool
	trends     trends
	turned     int // counts changes of the path
	nextTrends time.Time
	hour       *view.Series // the last hour by the minute; nil is not known
	nextHour   time.Time
	drawn      tea.View // the last picture
	stale      bool     // it is not that of the state
	say        string   // in the last line until the next key, or for a while
	sayUntil   time.Time
}

// screen is what the model shows.
type screen uint8

const (
	overview screen = iota
	single          // one list, in all of the screen
	alerts
	help
)

// step is a way into the traffic: filters, and where one came from.
type step struct {
	filters []Filter
	from    string // panel
}

// listState is what the person has done to a list. It outlives the answers.
type listState struct {
	selected string // id of a row, which keeps selected wherever it moves
	index    int    // its place; where it stands when the row is gone
	top      int    // first row that is drawn
	page     int    // rows that were drawn
	sort     string // column, "" as it came
	ascends  bool
	pattern  pattern
}

// answer is a message: what came of a request.
type answer struct {
	asked int
	d     *view.Dashboard
	err   error
}

// tick is a message: time has passed.
type tick time.Time

// told is how long the last line says something before it names the keys again.
const told = 5 * time.Second

// tell says something in the last line.
func (m *Model) tell(text string) { m.say, m.sayUntil = text, m.now.Add(told) }

// Resumed is a message: the process was stopped, and continues.
type Resumed struct{}

// singleRows is how many rows a list is asked for that fills the screen, or is filtered: agents send as
// many of each table while someone watches, about 80 bytes each.
const singleRows = 500

// leastPeriod bounds how often an aggregator can make the view ask and draw.
const leastPeriod = 100 * time.Millisecond

// New returns a model that shows d, which came at now.
func New(o Options, d *view.Dashboard, now time.Time) *Model {
	m := &Model{o: o, ink: newPalette(o.Style.Color, !o.Light), lists: map[string]*listState{}, now: now, stale: true}
	m.take(d)
	return m
}

// Init implements tea.Model.
func (m *Model) Init() tea.Cmd {
	cmds := []tea.Cmd{m.tick()}
	if m.o.Style.Color {
		cmds = append(cmds, tea.RequestBackgroundColor)
	}
	if m.wantsHour() {
		cmds = append(cmds, m.askHour())
	}
	return tea.Batch(cmds...)
}

// Update implements tea.Model.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	old := m.stale
	m.stale = true
	switch msg := msg.(type) {
	case tick:
		m.now = time.Time(msg)
		if m.say != "" && !m.now.Before(m.sayUntil) {
			m.say = ""
		}
		if !m.waits && !m.now.Before(m.next) {
			m.stale = old // one picture with the answer is enough
			cmds := []tea.Cmd{m.ask(), m.tick()}
			if m.wantsTrends() {
				cmds = append(cmds, m.askTrends())
			}
			if m.wantsHour() {
				cmds = append(cmds, m.askHour())
			}
			return m, tea.Batch(cmds...)
		}
		return m, m.tick()
	case answer:
		if msg.asked != m.asked {
			m.stale = old
			return m, nil // of another question
		}
		m.waits = false
		m.next = m.now.Add(m.period())
		if m.when.past() {
			m.next = m.now.Add(max(m.period(), slow))
		}
		if msg.err != nil {
			if m.lost.IsZero() {
				m.lost = m.now
			}
			m.why = m.o.Why(msg.err)
			return m, nil
		}
		m.lost = time.Time{}
		m.take(msg.d)
	case trendAnswer:
		m.takeTrends(msg)
	case hourAnswer:
		if msg.asked == m.turned && msg.x != nil {
			m.hour = msg.x
		}
	case Resumed:
		return m, m.ask() // the picture is as old as the pause was long
	case tea.WindowSizeMsg:
		m.o.Style.Width, m.o.Style.Height = msg.Width, msg.Height
	case tea.BackgroundColorMsg:
		m.ink = newPalette(m.o.Style.Color, msg.IsDark())
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case tea.MouseMsg:
		if m.input == nil {
			return m, m.mouse(msg)
		}
	case tea.PasteMsg:
		if m.input != nil {
			m.input.add(msg.Content)
			m.typed()
		}
	}
	return m, nil
}

// period is how often to ask.
func (m *Model) period() time.Duration { return max(m.d.Status.Refresh, leastPeriod) }

// tick comes each second, that clocks go on, or as often as is asked.
func (m *Model) tick() tea.Cmd {
	return tea.Tick(min(m.period(), time.Second), func(t time.Time) tea.Msg { return tick(t) })
}

// ask asks for what the path leads to.
func (m *Model) ask() tea.Cmd {
	m.asked++
	m.waits = true
	n, r, f := m.asked, m.request(), m.o.Ask
	return func() tea.Msg {
		d, err := f(r)
		return answer{n, d, err}
	}
}

func (m *Model) request() (r Request) {
	for _, s := range m.path {
		r.Filters = append(r.Filters, s.filters...)
	}
	switch {
	case m.when.past():
		r.Since, r.Until = m.when.since, m.when.until
	case m.when.text != "":
		if since, err := m.o.When(m.when.text, m.clock()); err == nil { // it was read before
			r.Since = since
		}
	}
	if m.screen == single {
		r.Rows = singleRows
	}
	for _, l := range m.lists {
		if l.pattern.text != "" {
			r.Rows = singleRows
		}
	}
	return r
}

// take makes panels of an answer.
func (m *Model) take(d *view.Dashboard) {
	m.d, m.at = d, m.now
	m.panels = panelsOf(m.d, m.style())
	for _, p := range m.panels {
		m.arrange(p)
	}
	if m.panel(m.focus) == nil && len(m.panels) > 0 {
		m.focus = m.panels[0].name
	}
}

// arrange filters and sorts a list anew.
func (m *Model) arrange(p *panel) {
	l := m.list(p.name)
	p.arrange(l)
	l.settle(p)
}

// style is how values are written, times of today without a date.
func (m *Model) style() view.Style {
	s := m.o.Style
	s.Now = m.d.Status.Time
	return s
}

// clock is the aggregator's time now: that of the last answer, and what has passed since.
func (m *Model) clock() time.Time { return m.d.Status.Time.Add(max(m.now.Sub(m.at), 0)) }

func (m *Model) list(name string) *listState {
	l := m.lists[name]
	if l == nil {
		l = &listState{}
		m.lists[name] = l
	}
	return l
}

func (m *Model) panel(name string) *panel {
	if i := slices.IndexFunc(m.panels, func(p *panel) bool { return p.name == name }); i >= 0 {
		return m.panels[i]
	}
	return nil
}

// current is the name of the list that has the keys.
func (m *Model) current() string {
	if m.screen == alerts {
		return alertsName
	}
	return m.focus
}

// settle finds the selected row where it is now.
func (l *listState) settle(p *panel) {
	if i := slices.IndexFunc(p.rows, func(r *row) bool { return r.id == l.selected }); i >= 0 {
		l.index = i
	}
	l.index = max(min(l.index, len(p.rows)-1), 0)
}

// move selects the row n further.
func (l *listState) move(p *panel, n int) {
	l.index = max(min(l.index+n, len(p.rows)-1), 0)
	l.selected = ""
	if l.index < len(p.rows) && l.index > 0 { // who stands on the first row wants the first, whichever that is
		l.selected = p.rows[l.index].id
	}
}

// show scrolls so that the selected row is among the n that are drawn.
func (l *listState) show(n int) {
	l.page = n
	l.top = min(l.top, l.index)
	l.top = max(l.top, l.index-n+1, 0)
}

// has reports whether the path fixes the column to the value; "" is any.
func (m *Model) has(column, value string) bool {
	return slices.ContainsFunc(m.path, func(s step) bool {
		return slices.ContainsFunc(s.filters, func(f Filter) bool { return f.Column == column && (value == "" || f.Value == value) })
	})
}

// pathText is the way into the traffic in words.
func (m *Model) pathText() string {
	s := m.o.Style
	sep := " > "
	if !s.ASCII {
		sep = " › "
	}
	parts := []string{view.Clean(m.d.Status.Alert.Scope)}
	if m.d.Filter != "" { // of the command line
		parts[0] += " " + view.Clean(m.d.Filter)
	}
	for _, s := range m.path {
		for _, f := range s.filters {
			parts = append(parts, view.Clean(f.Column)+" "+view.Clean(f.Value))
		}
	}
	return strings.Join(parts, sep)
}
