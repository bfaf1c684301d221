package telemetry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began = time.Now()
		var b Beat
		time.Sleep(2 * Stuck)
		if err := b.Check(Stuck); err != nil {
			t.Errorf("Check of a loop that rests = %v, want nil", err)
		}
		b.Round()
		time.Sleep(Stuck)
		if err := b.Check(Stuck); err != nil {
			t.Errorf("Check after %v = %v, want nil", Stuck, err)
		}
		time.Sleep(time.Second)
		if err := b.Check(Stuck); err == nil || err.Error() != "no progress for 1m1s" {
			t.Errorf("Check after %v = %v, want no progress for 1m1s", Stuck+time.Second, err)
		}
		b.Rest()
		if err := b.Check(Stuck); err != nil {
			t.Errorf("Check of a loop that has ended = %v, want nil", err)
		}
	})
	began = time.Now()
}

func TestAnswer(t *testing.T) {
	failing := errors.New("disk \x1b[31mfull")
	for _, c := range []struct {
		conditions func() []Condition
		status     int
		want       string
	}{
		{nil, 200, ""},
		{func() []Condition { return []Condition{{"store", nil}, {"judge", nil}} }, 200, "ok store\nok judge\n"},
		{func() []Condition { return []Condition{{"store", failing}, {"judge", nil}} }, 503, "failed store: disk \\x1b[31mfull\nok judge\n"},
	} {
		w := httptest.NewRecorder()
		answer(c.conditions).ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
		if got := w.Body.String(); w.Code != c.status || got != c.want {
			t.Errorf("answer = %d %q, want %d %q", w.Code, got, c.status, c.want)
		}
	}
}

// TestPageHealth asks each path for its own conditions.
func TestPageHealth(t *testing.T) {
	conditions := func(name string) func() []Condition {
		return func() []Condition { return []Condition{{Name: name}} }
	}
	page, err := Serve(context.Background(), "127.0.0.1:0", NewRegistry(), Health{Live: conditions("loop"), Ready: conditions("store")})
	if err != nil {
		t.Fatal(err)
	}
	defer page.Stop(context.Background())
	for path, want := range map[string]string{"/healthz": "ok loop\n", "/readyz": "ok store\n"} {
		response, err := http.Get("http://" + page.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if string(got) != want {
			t.Errorf("GET %s = %q, want %q", path, got, want)
		}
	}
}
