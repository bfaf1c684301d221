package bolt

import (
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
)

// mapped is how much of a file is resident in this process (proc(5), smaps).
func mapped(t *testing.T, path string) (kib int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	in := false
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			in = fields[len(fields)-1] == path
		case in && fields[0] == "Rss:":
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			kib += n
		}
	}
	return kib
}

// TestReleasePages: what was read is not resident any more, and is read as before.
func TestReleasePages(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	for i := range 60 {
		var batch []store.Item
		for host := range 10 {
			batch = append(batch, wide(t, host, i))
		}
		if _, err := s.Append(ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	plan := store.Plan{Table: "routes", From: storetest.At(0), To: storetest.At(60), Step: storetest.Width}
	ask := func() *store.Answer {
		a, err := s.Query(ctx, plan)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	want := ask()
	before := mapped(t, s.path)
	if err := s.ReleasePages(); err != nil {
		t.Fatal(err)
	}
	if after := mapped(t, s.path); before < 1000 || after > before/10 {
		t.Errorf("%d KiB of the file are resident, before %d; want less than a tenth", after, before)
	}
	if got := ask(); !reflect.DeepEqual(got, want) {
		t.Errorf("after ReleasePages the answer differs")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.ReleasePages(); err == nil {
		t.Error("ReleasePages of a closed store = nil, want an error")
	}
}
