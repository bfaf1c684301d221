// Package inspect says whether a host can capture: it judges what was found out about the host, and writes that
// for a screen. It finds out nothing itself.
package inspect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Findings is what was found out about a host. What could not be is zero.
type Findings struct {
	Host, Release string // of the kernel
	Program       string // the path of this one
	Cores         int
	// Interfaces are those to capture on, as they were named.
	Interfaces []string
	// Namespaces are other network namespaces to capture in, as they were named; their interfaces are not among Links.
	Namespaces []string
	// Links are the interfaces named; of "any" all with hardware, or all there are if none has.
	Links []Link
	// Elsewhere are the other interfaces, with the packets that they had meanwhile.
	Elsewhere []Link

	// Failure says why nothing can be captured.
	Failure Failure
	Reason  string // its text

	Rings         int // of each network namespace
	RingsReason   string
	RingSize      config.Size
	BlockSize     config.Size
	PollTimeout   time.Duration
	Ports         int // how many the kernel passes; 0: all
	LocalNetworks int // how many are set
	// Memory is the ceiling of the agent, Available what the host could give, or 0.
	Memory, Available config.Size
	// Speed is that of all links together in Mb/s, which rings were chosen by; Guessed if no link tells its own.
	Speed   int
	Guessed bool

	// Sample says how fast one core is; its Packets are 0 if that was not measured.
	Sample Sample
	// Heard is how long was listened; 0 if it was not.
	Heard time.Duration
	Traffic
}

// Link is an interface, and what changed while it was listened to.
type Link struct {
	capture.Link
	NewPackets, NewMissed uint64
}

// Sample is how fast the pipeline takes packets.
type Sample struct {
	Packets, Bytes uint64
	Time           time.Duration // of the processor
}

// Traffic is what was heard.
type Traffic struct {
	Counters exchange.Counters
	Freezes  uint64
	// Ended counts exchanges, Transit those of them of which no end is this host.
	Ended, Transit uint64
	// HTTPBytes are the octets of their messages.
	HTTPBytes uint64
	// CPU is the processor time that listening took.
	CPU time.Duration
}

// Failure is a reason for which nothing can be captured.
type Failure int

// The failures.
const (
	None            Failure = iota
	NoInterface             // none is named
	NoSuchInterface         // one that is named does not exist
	NoPrivilege             // to open a packet socket
	NoMemory                // for the rings
	BadNamespace            // one that is named cannot be entered
	OtherFailure            // of which Reason says more
)

// Verdict is what comes of findings.
type Verdict struct {
	// Can is whether anything can be captured.
	Can bool
	// But says what is wrong, the worst first.
	But []string
	// Changes are what to do about it.
	Changes []Change
}

// Change is a setting or a command, and what it is for.
type Change struct{ Do, For string }

const (
	// enough exchanges, connections or segments to judge by.
	enough = 20
	// fullFrame is an Ethernet frame of a packet of 1500 bytes.
	fullFrame = 1514
)

// Judge decides. It is a function of the findings alone.
func (f *Findings) Judge() Verdict {
	v := Verdict{Can: f.Failure == None}
	but := func(format string, args ...any) { v.But = append(v.But, fmt.Sprintf(format, args...)) }
	change := func(purpose, format string, args ...any) {
		c := Change{fmt.Sprintf(format, args...), purpose}
		if !slices.Contains(v.Changes, c) {
			v.Changes = append(v.Changes, c)
		}
	}
	if !v.Can {
		f.judgeFailure(but, change)
		return v
	}
	down := 0
	for _, l := range f.Links {
		switch {
		case !l.Up:
			down++
			but("%s is down", l.Name)
			change("it is switched off", "sudo ip link set %s up", l.Name)
		case !l.Carrier && !l.Loopback:
			down++
			but("%s has no carrier", l.Name)
			change("the cable, the other end, or the port of the switch", "look after what %s is connected to", l.Name)
		}
	}
	if down > 0 && down == len(f.Links) {
		v.Can = false
		return v
	}
	f.judgeLoss(but, change)
	f.judgeRate(but, change)
	if f.Heard > 0 && f.Counters[exchange.Packets] == 0 {
		f.judgeSilence(but, change)
	}
	f.judgeTraffic(but, change)
	if f.Available > 0 && f.Available < f.Memory {
		but("the host has less memory left than the agent may take")
		least := max(f.Available/2-f.Available/2%config.MiB, 96*config.MiB)
		change(fmt.Sprintf("the ceiling is %s, and %s are left", size(f.Memory), size(f.Available)), "agent.memory: %v", least)
	}
	return v
}

type (
	butFunc    = func(format string, args ...any)
	changeFunc = func(purpose, format string, args ...any)
)

func (f *Findings) judgeFailure(but butFunc, change changeFunc) {
	var names []string
	for _, l := range f.Elsewhere {
		names = append(names, l.Name)
	}
	there := "there are: " + strings.Join(append(names, capture.Any), ", ")
	but("%s", f.Reason)
	switch f.Failure {
	case NoInterface:
		change(there, "httpctl-agent --check-capture -i IFACE")
	case NoSuchInterface:
		change(there, "another name, with -i or in agent.capture.interfaces")
	case NoPrivilege:
		once := "or as root, once"
		if len(f.Namespaces) == 0 {
			change("it needs the capability CAP_NET_RAW, from then on", "sudo setcap cap_net_raw+ep %s", f.Program)
		} else {
			once = "other network namespaces need the capability CAP_SYS_ADMIN, too"
		}
		change(once, "sudo %s --check-capture%s", f.Program, f.flags())
	case BadNamespace:
		change("names are those in /run/netns, and paths begin with /", "another name, with --netns or in agent.capture.namespaces")
	case NoMemory:
		all := config.Size(f.allRings()) * f.RingSize
		change(fmt.Sprintf("the rings want %s in one piece from the kernel", size(all)), "agent.capture.ring_size: %v", max(f.RingSize/4-f.RingSize/4%config.MiB, 2*config.MiB))
		if f.Rings > 1 {
			change("or fewer of them", "agent.capture.rings: 1")
		}
	}
}

// flags are those that name where to capture.
func (f *Findings) flags() string {
	var b strings.Builder
	for _, name := range f.Interfaces {
		b.WriteString(" -i " + name)
	}
	for _, name := range f.Namespaces {
		b.WriteString(" --netns " + name)
	}
	return b.String()
}

// judgeLoss looks at what was lost on the way here.
func (f *Findings) judgeLoss(but butFunc, change changeFunc) {
	c := &f.Counters
	if drops := c[exchange.KernelDrops]; drops > 0 {
		but("the kernel dropped %s of packets", percent(drops, drops+c[exchange.Packets]))
		switch {
		case f.busy() && f.moreRings() > f.Rings:
			change("one core cannot keep up with a ring", "agent.capture.rings: %d", f.moreRings())
		case f.busy() && f.Ports == 0:
			change("no core is left for more rings: have the kernel pass less", "agent.capture.ports: [80, 8080]")
		case f.busy():
			change("no core is left for more rings", "give this host more cores, or spread its traffic")
		default:
			ring := min(2*f.RingSize, config.GiB)
			change("they came in bursts that the ring did not hold", "agent.capture.ring_size: %v", ring)
			if memory := 8 * ring * config.Size(f.allRings()); memory > f.Memory {
				change("as the rings are to be an eighth of it", "agent.memory: %v", memory)
			}
		}
	}
	for _, l := range f.Links {
		if l.NewMissed == 0 {
			continue
		}
		but("%s itself missed %s packets", l.Name, number(l.NewMissed))
		if l.RxBuffers < l.MostRxBuffers {
			change("its hardware had no room", "sudo ethtool -G %s rx %d", l.Name, l.MostRxBuffers)
		} else {
			change("its hardware had no room, and has no more to give", "spread the interrupts of %s over more cores", l.Name)
		}
	}
	largest := config.Size(0)
	for _, l := range f.Links {
		largest = max(largest, l.MaxFrame)
	}
	if cut := c[exchange.TruncatedPackets]; cut > 0 {
		but("%s packets were cut, as they are larger than a block", number(cut))
	}
	if c[exchange.TruncatedPackets] > 0 || largest+1024 > f.BlockSize {
		if largest+1024 > f.BlockSize && c[exchange.TruncatedPackets] == 0 {
			but("frames of up to %s do not fit into a block", size(largest))
		}
		change("any frame fits then", "agent.capture.block_size: 1MiB")
		for _, l := range f.Links {
			if l.Offloads[capture.LRO] {
				change("or smaller frames", "sudo ethtool -K %s lro off", l.Name)
			}
		}
	}
	// Where one direction is missing, what is acknowledged in the other looks like gaps.
	if gaps := c[exchange.Gaps]; gaps >= enough && gaps*1000 > c[exchange.Segments] && c[exchange.KernelDrops] == 0 && f.missing() == "" {
		but("packets were lost before they came here")
		change("that is where they were: a mirror port that is given more than it can send", "look at the drops of the switch's port")
	}
}

// judgeRate compares what came with what this host could take.
func (f *Findings) judgeRate(but butFunc, change changeFunc) {
	if f.Sample.Packets == 0 {
		return
	}
	if rate := f.rate(exchange.Packets); rate*2 > f.capacity() && f.Counters[exchange.KernelDrops] == 0 {
		but("it took more than half of what %s can", plural(f.allRings(), "ring"))
		if n := f.moreRings(); n > f.Rings {
			change("for what is to come", "agent.capture.rings: %d", n)
		} else if f.Ports == 0 {
			change("what the kernel passes costs less", "agent.capture.ports: [80, 8080]")
		}
	}
	if f.Guessed || float64(f.Speed) <= f.lineRate()*float64(f.Rings) {
		return
	}
	but("of the %s that the links could bring, %s would take %s", capture.FormatSpeed(f.Speed), plural(f.Rings, "ring"), bits(f.lineRate()*float64(f.Rings)*1e6))
	wanted := int(float64(f.Speed)/f.lineRate()) + 1
	switch n := min(wanted, f.Cores/2, maxRings); {
	case n > f.Rings:
		change("if the links are ever that full", "agent.capture.rings: %d", n)
		if memory := config.Size(n) * 64 * config.MiB; memory > f.Memory {
			change("so that every ring has its part", "agent.memory: %v", memory)
		}
	case f.Ports == 0:
		change("if the links are ever that full: have the kernel pass less", "agent.capture.ports: [80, 8080]")
		change("or that: half of them may have a ring each", "give the agent %s", plural(2*wanted, "core"))
	}
}

// judgeSilence looks for why nothing came.
func (f *Findings) judgeSilence(but butFunc, change changeFunc) {
	but("nothing came in %s", seconds(f.Heard))
	if f.Ports > 0 {
		change("only those pass; without, anything does", "agent.capture.ports: []")
	}
	busiest := Link{}
	for _, l := range f.Elsewhere {
		if l.NewPackets > busiest.NewPackets {
			busiest = l
		}
	}
	if busiest.NewPackets > 0 {
		change(fmt.Sprintf("it had %s packets meanwhile", number(busiest.NewPackets)), "httpctl-agent --check-capture -i %s", busiest.Name)
	}
	for _, l := range f.Links {
		if l.Hardware && !l.Promiscuous {
			change("on a mirror port, whose frames are addressed to others", "sudo ip link set %s promisc on", l.Name)
		}
	}
	change("again while there is traffic, such as: curl http://HOST/", "httpctl-agent --check-capture%s", f.flags())
}

// judgeTraffic looks at what kind of traffic it is.
func (f *Findings) judgeTraffic(but butFunc, change changeFunc) {
	c := &f.Counters
	requests, responses, ended := c[exchange.Requests], c[exchange.Responses], c[exchange.Outcomes]
	both := "capture on both ports of the mirror or tap: -i ONE -i OTHER"
	half := c[exchange.UnmatchedRequests] + c[exchange.UnmatchedResponses]
	switch f.missing() {
	case "responses":
		but("only requests are seen, and no responses")
		change("one direction is missing", "%s", both)
	case "requests":
		but("only responses are seen, and no requests")
		change("one direction is missing", "%s", both)
	default:
		if ended >= enough && half*5 > ended {
			but("one half only is seen of %s of the exchanges", percent(half, ended))
			change("of some connections one direction is missing", "%s", both)
		}
	}
	if known := f.others(); requests+responses == 0 && c[exchange.Packets] > 0 {
		if c[exchange.OtherTLS]*2 > known && c[exchange.OtherTLS] > 0 {
			but("there is no HTTP, but TLS, which cannot be looked into")
			change("where TLS ends: between the proxy and the programs", "httpctl-agent --check-capture -i lo")
		} else {
			but("there is no HTTP among the packets")
			change("again while there is traffic, such as: curl http://HOST/", "httpctl-agent --check-capture%s", f.flags())
		}
	}
	if f.Ports == 0 && f.HTTPBytes > 0 && f.HTTPBytes*4 < c[exchange.PacketBytes] && f.rate(exchange.Packets)*5 > f.capacity() && f.Sample.Packets > 0 {
		but("most of what it takes is not HTTP")
		change(fmt.Sprintf("HTTP is %s of the bytes; name its ports, and the kernel passes no others", percent(f.HTTPBytes, c[exchange.PacketBytes])), "agent.capture.ports: [80, 8080]")
	}
	if f.mirror() && f.LocalNetworks == 0 {
		change("so that the servers among these hosts are known as such", "agent.local_networks: [192.0.2.0/24]")
	}
}

// missing is "requests" or "responses" if there are hardly any of them.
func (f *Findings) missing() string {
	switch requests, responses := f.Counters[exchange.Requests], f.Counters[exchange.Responses]; {
	case requests >= enough && responses*20 < requests:
		return "responses"
	case responses >= enough && requests*20 < responses:
		return "requests"
	}
	return ""
}

// mirror reports whether the traffic is that of other hosts.
func (f *Findings) mirror() bool { return f.Ended >= enough && f.Transit*2 > f.Ended }

// others counts connections of other protocols.
func (f *Findings) others() (n uint64) {
	for i, k := range f.Counters {
		if exchange.Counter(i).OtherProtocol() {
			n += k
		}
	}
	return n
}

// rate is a counter by the second.
func (f *Findings) rate(c exchange.Counter) float64 {
	if f.Heard <= 0 {
		return 0
	}
	return float64(f.Counters[c]) / f.Heard.Seconds()
}

// perCore is the packets that one core takes in a second.
func (f *Findings) perCore() float64 {
	if f.Sample.Time <= 0 {
		return 0
	}
	return float64(f.Sample.Packets) / f.Sample.Time.Seconds()
}

func (f *Findings) capacity() float64 { return f.perCore() * float64(f.allRings()) }

// lineRate is the rate of full frames that one ring takes, in Mb/s.
func (f *Findings) lineRate() float64 { return f.perCore() * fullFrame * 8 / 1e6 }

// busy reports whether the rings are short of cores rather than of memory.
func (f *Findings) busy() bool {
	return f.Heard > 0 && (f.CPU.Seconds() > 0.7*f.Heard.Seconds()*float64(f.allRings()) || f.capacity() > 0 && f.rate(exchange.Packets) > 0.6*f.capacity())
}

// allRings is how many there are in all namespaces.
func (f *Findings) allRings() int {
	namespaces := len(f.Namespaces)
	if len(f.Interfaces) > 0 {
		namespaces++
	}
	return f.Rings * max(namespaces, 1)
}

// maxRings is the most that can be set, see [capture.Config].
const maxRings = 64

// moreRings is how many there might be.
func (f *Findings) moreRings() int { return max(min(2*f.Rings, f.Cores/2, maxRings), f.Rings) }
