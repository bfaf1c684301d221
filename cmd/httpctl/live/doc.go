// Package live is the dashboard that a person works with: panels to look at, to walk into and to filter.
//
// A Model is a value that messages change. It reads no clock and asks nobody: ticks carry the time, and
// what it wants to know it asks with a command, that whoever runs it (package command) made. A picture is
// a function of the model, so screens are compared with goldens.
package live
