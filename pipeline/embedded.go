package pipeline

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// ParseEmbedded parses text for the embedded shell. It stands apart because
// nothing else of this package shows types of another module; the runner is to
// parse what it runs itself.
func ParseEmbedded(text string) (*syntax.File, error) {
	return syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
}
