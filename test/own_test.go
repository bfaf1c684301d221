package test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// TestOwnTrafficIsNotCounted has an agent capture on the loopback interface over which it delivers:
// of its own connection nothing is counted, also when that is made anew, and of HTTP all is.
func TestOwnTrafficIsNotCounted(t *testing.T) {
	need(t, "ip", "curl")
	t.Parallel()
	lab, err := testkit.NewLab("host")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { lab.Close() })
	run := func(args ...string) *background {
		t.Helper()
		return launchCommand(t, lab.Command(context.Background(), "host", program(t, args[0]), args[1:]...))
	}
	for _, address := range []string{"127.0.0.1:7420", "[::1]:7421"} {
		data := t.TempDir()
		center := write(t, "aggregator.yaml", "dashboard_bucket_size: 1s\naverage_bucket_size: 10s\naggregator:\n  data: "+data+"\n  listen: [\""+address+"\"]\n")
		aggregator := run("httpctl-aggregator", "--config", center)
		aggregator.says(t, "serving")
		agent := run("httpctl-agent", "-i", "any", "--config", write(t, "agent.yaml",
			"dashboard_bucket_size: 1s\nagent:\n  state: "+t.TempDir()+"\n  aggregator: \""+address+"\"\n  metrics: 127.0.0.1:7422\n  backoff_max: 500ms\n  capture: {poll_timeout: 50ms, block_size: 128KiB}\n"))
		agent.says(t, "connected")
		// The page of the agent's own counters is HTTP on lo, too, and shows what was seen before. look waits until those are
		// all pages before it; where it does not come to that, the counters below say so.
		pages := 0
		look := func() (values map[string]int) {
			t.Helper()
			for tries := 0; tries < 20 && (values == nil || values["agent_outcomes_total"] != pages-1); tries++ {
				time.Sleep(time.Duration(400*(tries+1)) * time.Millisecond)
				pages++
				out, err := lab.Command(t.Context(), "host", "curl", "-sS", "--max-time", "120", "http://127.0.0.1:7422/metrics").Output()
				if err != nil {
					t.Fatal(err)
				}
				values = map[string]int{"pages": pages}
				for _, m := range regexp.MustCompile(`(?m)^httpctl_([a-z0-9_]+)(?:\{result="stored"\})? ([0-9]+)$`).FindAllStringSubmatch(string(out), -1) {
					values[m[1]], _ = strconv.Atoi(m[2])
				}
			}
			return values
		}
		// stores waits until the aggregator has stored so many intervals more.
		stores := func(n int) {
			t.Helper()
			was := time.Now()
			eventually(t, fmt.Sprint(n, " intervals are delivered"), func() error {
				out, err := lab.Command(t.Context(), "host", program(t, "httpctl"), "hosts", "-o", "json", "--aggregator", "unix:"+data+"/httpctl.sock").Output()
				var answer struct {
					Hosts []struct {
						Through time.Time `json:"covered_through"`
					}
				}
				if err == nil {
					err = json.Unmarshal(out, &answer)
				}
				if err != nil || len(answer.Hosts) != 1 || answer.Hosts[0].Through.Before(was.Add(time.Duration(n)*time.Second)) {
					return fmt.Errorf("%s, %v", out, err)
				}
				return nil
			})
		}
		first := look()
		one := look()
		begin := time.Now()
		stores(4)
		aggregator.stop(t, syscall.SIGTERM)
		aggregator = run("httpctl-aggregator", "--config", center)
		agent.says(t, "is back")
		stores(1)
		last := look()
		delivered := last["uplink_answers_total"] - one["uplink_answers_total"]
		each := (one["agent_segments_total"] - first["agent_segments_total"]) / (one["pages"] - first["pages"])
		most := (each + 4) * (last["pages"] - one["pages"])
		if got := last["agent_segments_total"] - one["agent_segments_total"]; delivered < 4 || each < 7 || got > most {
			t.Errorf("%s: %d segments in %v with %d deliveries; one page is %d", address, got, time.Since(begin), delivered, each)
		}
		for name, want := range map[string]int{
			"agent_connections_total": pages - 1, "agent_requests_total": pages - 1, "agent_responses_total": pages - 1,
			"agent_http2_total": 0, "agent_tls_total": 0, "agent_unknown_total": 0, "agent_gaps_total": 0, "agent_kernel_drops_total": 0,
		} {
			if got, ok := last[name]; got != want || !ok {
				t.Errorf("%s: %s = %d, want %d", address, name, got, want)
			}
		}
		agent.stop(t, syscall.SIGTERM)
		aggregator.stop(t, syscall.SIGTERM)
	}
}
