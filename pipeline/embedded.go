package pipeline

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// ParseEmbedded parses text for the embedded shell. It will go away: no other
// function of this package shows types of another module, and whoever runs the
// text can parse it.
func ParseEmbedded(text string) (*syntax.File, error) {
	return syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
}
