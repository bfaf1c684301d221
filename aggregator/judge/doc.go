// Package judge drives the default rule: it reads what the fleet counted from
// the store, hands it to the pure rooms baseline and alert, and keeps their
// journal. It is a room of its own because DESIGN's rooms that decide do no
// I/O and read no clock; here are the clock, the store and the waiting, and no
// decision about what is normal.
//
// # When a window is judged
//
// When the coverage of every live host contains it, or two widths after its
// end. Width is that of an interval (dashboard_bucket_size), as everywhere in
// DESIGN. Live is a host that is not gone, that began before the window's end,
// and whose clock is not skewed. After a restart "its end" is at the earliest
// the start of this process: agents spool what happened in between, and an
// absence of the aggregator must not make windows incomplete.
//
// A window in which no host was observed is not judged but skipped, as one
// growing gap in the journal; it never dismisses. It is held back for as long as
// a host that is not gone may still send it and nobody sent anything newer, so
// that a restart in which the agents need a minute to come back loses no verdict.
//
// Only windows that end less than five minutes ahead of the wall clock are
// judged. A host whose coverage is further ahead, and moving, is skewed: it is
// neither waited for nor counted. Once its clock was set right, what its new
// incarnation covers counts (store.Host.Covered).
//
// # What is durable
//
// Under "baseline/SCOPE" the learning (baseline.Encode), under
// "verdict/SCOPE/..." the journal (alert.Encode), a key for each step:
//
//	verdict/SCOPE/<end>            a verdict; end of the window
//	verdict/SCOPE/<T1>/1-learned   the baseline is enforced
//	verdict/SCOPE/<from>/2-gap     nobody was observed; rewritten as it grows
//	verdict/SCOPE/<T0>/3-relearn   someone asked to relearn
//
// Times are nanoseconds, zero padded to 19 digits. A step is shown after it is
// durable. A crash in between is replayed at the next start, and as each key is
// written with CompareAndSwap, no step is ever taken twice.
//
// # Changed settings
//
// The threshold is taken from the settings at each verdict. A changed
// average_bucket_size, or a dashboard_bucket_size that the windows are no
// multiple of, relearns with a warning: counts of other windows are not
// comparable, and scaling would pass a guess for something learned. A changed
// average_learning_duration applies to learning under way.
package judge
