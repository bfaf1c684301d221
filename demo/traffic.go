package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// site is the web server of the demo.
type site struct {
	addr   net.Addr
	server *http.Server
	served atomic.Int64
	done   chan struct{}
}

// startSite serves a small web shop on a free loopback port.
func startSite() (*site, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &site{addr: l.Addr(), done: make(chan struct{})}
	s.server = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		defer close(s.done)
		_ = s.server.Serve(l) // ErrServerClosed at the end
	}()
	return s, nil
}

func (s *site) stop() {
	_ = s.server.Close()
	<-s.done
}

// serve answers with what a shop would: pages, an API, pictures, and the odd mistake.
func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	s.served.Add(1)
	_, _ = io.Copy(io.Discard, r.Body)
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, "/old"):
		http.Redirect(w, r, "/cart", http.StatusMovedPermanently)
	case strings.HasPrefix(path, "/missing"):
		http.NotFound(w, r)
	case strings.HasPrefix(path, "/report"):
		time.Sleep(time.Duration(20+rand.IntN(60)) * time.Millisecond)
		if rand.IntN(4) == 0 {
			http.Error(w, "out of paper", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, strings.Repeat("line\n", 400))
	case strings.HasPrefix(path, "/images"):
		w.Header().Set("Content-Type", "image/png")
		_, _ = w.Write(make([]byte, 2000+rand.IntN(12000)))
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPost:
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintln(w, `{"ok":true}`)
	default:
		time.Sleep(time.Duration(rand.IntN(8)) * time.Millisecond)
		fmt.Fprint(w, strings.Repeat("hello\n", 50+rand.IntN(150)))
	}
}

// request is one line of what clients ask for; weight says how often.
type request struct {
	method, host, path string
	weight             int
}

var requests = []request{
	{"GET", "shop.example.org", "/", 10},
	{"GET", "shop.example.org", "/catalogue/shoes?page=2", 16},
	{"GET", "shop.example.org", "/cart", 8},
	{"POST", "shop.example.org", "/cart/items", 5},
	{"GET", "shop.example.org", "/old/address", 2},
	{"GET", "static.example.org", "/images/logo.png", 14},
	{"GET", "static.example.org", "/css/main.css", 7},
	{"HEAD", "static.example.org", "/images/hero.png", 2},
	{"GET", "api.example.org", "/v1/orders/17", 9},
	{"PUT", "api.example.org", "/v1/orders/17", 3},
	{"DELETE", "api.example.org", "/v1/orders/18", 2},
	{"GET", "api.example.org", "/report/daily", 3},
	{"GET", "www.example.net", "/missing/page", 3},
	{"OPTIONS", "api.example.org", "/v1/orders", 1},
}

var agents = []string{
	"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
	"Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1",
	"curl/8.14.1",
	"python-requests/2.32.4",
	"kube-probe/1.34",
}

// phase is a rate of requests per second from a moment on.
type phase struct {
	from time.Duration
	rate int
}

// play sends traffic to addr as the phases say, until length has passed or ctx
// ends. The number of requests is bounded by the
// phases' rates, those under way at a time by the number of clients.
func play(ctx context.Context, addr string, phases []phase, length time.Duration) {
	const clients = 16
	work := make(chan request)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			// Every fourth client opens a connection for each request.
			transport := &http.Transport{DisableKeepAlives: i%4 == 0, DisableCompression: true}
			defer transport.CloseIdleConnections()
			client := &http.Client{
				Transport:     transport,
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
				Timeout:       5 * time.Second,
			}
			for r := range work {
				send(client, addr, r, agents[i%len(agents)])
			}
		})
	}
	defer wg.Wait()
	defer close(work)

	total := 0
	for _, r := range requests {
		total += r.weight
	}
	start := time.Now()
	sent := 0.0
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	last := start
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if now.Sub(start) >= length {
				return
			}
			rate := 0
			for _, p := range phases {
				if now.Sub(start) >= p.from {
					rate = p.rate
				}
			}
			for sent += now.Sub(last).Seconds() * float64(rate); sent >= 1; sent-- {
				n := rand.IntN(total)
				i := 0
				for ; n >= requests[i].weight; i++ {
					n -= requests[i].weight
				}
				select {
				case work <- requests[i]:
				case <-ctx.Done():
					return
				}
			}
			last = now
		}
	}
}

// send makes one request and reads the answer. What goes wrong shows on the dashboard.
func send(client *http.Client, addr string, r request, agent string) {
	var body io.Reader
	if r.method == "POST" || r.method == "PUT" {
		body = strings.NewReader(strings.Repeat("item=17&", 1+rand.IntN(40)))
	}
	req, err := http.NewRequest(r.method, "http://"+addr+r.path, body)
	if err != nil {
		return
	}
	req.Host = r.host
	req.Header.Set("User-Agent", agent)
	resp, err := client.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}
