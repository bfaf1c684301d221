package telemetry

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/httpctl/httpctl/pkg/security"
)

// Stuck is how long a loop may take for one round before /healthz says that it stands still: far
// longer than a slow disk or a busy host delays one, as whoever asks will restart the program.
const Stuck = time.Minute

// Condition is one thing that a healthy or a ready program fulfils.
type Condition struct {
	// Name is fixed and lower-case: it is what a reader greps for.
	Name string
	// Err says why it does not hold; nil if it does.
	Err error
}

// Health asks a program how it is. The functions are called for each request, by several goroutines
// at once, and must not block for long. A nil function has no conditions, so all is well.
type Health struct {
	// Live are the conditions without which only a restart helps: /healthz.
	Live func() []Condition
	// Ready are those without which the program cannot do its job now: /readyz.
	Ready func() []Condition
}

// began is where Beat's clock begins, which stands still while the host is suspended.
var began = time.Now()

// Beat notes when a loop last went round. The zero value is that of a loop that rests, which is
// never stuck. It is safe for concurrent use.
type Beat struct{ at atomic.Int64 }

// Round notes that the loop goes round.
func (b *Beat) Round() { b.at.Store(max(1, int64(time.Since(began)))) }

// Rest notes that the loop has ended, or waits for work for as long as it takes.
func (b *Beat) Rest() { b.at.Store(0) }

// Check returns an error when the last round is longer ago than limit.
func (b *Beat) Check(limit time.Duration) error {
	at := b.at.Load()
	if at == 0 {
		return nil
	}
	if since := time.Since(began) - time.Duration(at); since > limit {
		return fmt.Errorf("no progress for %v", since.Round(time.Second))
	}
	return nil
}

// answer serves conditions as text, a line each: 200 if all hold, else 503.
func answer(conditions func() []Condition) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var text strings.Builder
		status := http.StatusOK
		if conditions != nil {
			for _, c := range conditions() {
				if c.Err == nil {
					fmt.Fprintf(&text, "ok %s\n", c.Name)
					continue
				}
				status = http.StatusServiceUnavailable
				fmt.Fprintf(&text, "failed %s: %s\n", c.Name, security.CleanText(c.Err.Error()))
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		fmt.Fprint(w, text.String())
	})
}
