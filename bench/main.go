// Command bench makes a capture of real traffic (nginx and wrk in two network
// namespaces), then compares what `httpctl read` counts in it with nginx's own
// log, to the unit, and its cost with that of tcpdump, httpry, ndpiReader and tshark. With -live it
// measures what an agent costs beside nginx instead.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/httpctl/httpctl/pkg/testkit"
)

func main() {
	dir := flag.String("dir", "/tmp/httpctl-bench", "where the capture is made and kept")
	httpctl := flag.String("httpctl", "bin/httpctl", "the program to measure")
	requests := flag.Int("requests", 120000, "requests in the capture")
	runs := flag.Int("runs", 5, "runs of each program, in turn; medians are shown; 0 only makes the capture and compares")
	beside := flag.Bool("live", false, "measure an agent beside nginx instead")
	rounds := flag.Int("rounds", liveRounds, "with -live: runs alone, beside tcpdump and beside an agent, in turn")
	seconds := flag.Int("seconds", 6, "with -live: how long a run takes")
	flag.Parse()
	var err error
	if *beside {
		err = benchLive(*dir, filepath.Dir(*httpctl), *rounds, *seconds)
	} else {
		err = run(*dir, *httpctl, *requests, *runs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(dir, httpctl string, requests, runs int) error {
	capture := filepath.Join(dir, "bench.pcap")
	if _, err := os.Stat(capture); errors.Is(err, os.ErrNotExist) {
		if err := record(dir, capture, requests); err != nil {
			return err
		}
	}
	want, err := testkit.ReadAccessLog(dir)
	if err != nil {
		return err
	}
	out, err := measure(httpctl, "read", "-o", "json", "--top", "0", capture)
	if err != nil {
		return err
	}
	var got report
	if err := json.Unmarshal(out.stdout, &got); err != nil {
		return fmt.Errorf("httpctl read: %w", err)
	}
	fmt.Printf("capture: %d packets, %d bytes; nginx logged %d requests\n", got.Packets, got.Bytes, want.Requests)
	if got.Packets < minPackets || want.Requests < minRequests {
		fmt.Printf("a smaller capture than the bars are for: %d packets, %d requests\n", minPackets, minRequests)
	}
	if err := compare(got, want); err != nil {
		return err
	}
	fmt.Println("counts of requests and responses, by method, status, domain, section, and volume: equal to nginx's log")
	if runs == 0 {
		return nil
	}
	return race(httpctl, capture, got.Packets, want.Requests, runs)
}

// The least that the bars are for.
const (
	minPackets  = 1_000_000
	minRequests = 110_000
)

// countReport returns the requests of a report.
func countReport(stdout []byte) (int64, error) {
	var r report
	err := json.Unmarshal(stdout, &r)
	return r.Requests, err
}

// report is what is used of `httpctl read -o json`.
type report struct {
	Packets            int64 `json:"packets"`
	Bytes              int64 `json:"bytes"`
	Requests           int64 `json:"requests"`
	Responses          int64 `json:"responses"`
	UnmatchedRequests  int64 `json:"unmatched_requests"`
	UnmatchedResponses int64 `json:"unmatched_responses"`
	Tops               map[string][]struct {
		Key           string `json:"key"`
		Hits          int64  `json:"hits"`
		Bytes         int64  `json:"bytes"`
		UploadBytes   int64  `json:"upload_bytes"`
		DownloadBytes int64  `json:"download_bytes"`
	} `json:"tops"`
}
