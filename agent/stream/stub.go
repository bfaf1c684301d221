package stream

type conn struct{}
